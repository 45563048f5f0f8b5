// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value or an Error, returned by everything that can fail because of the environment.
// Method names are a subset of std::expected, so that it can become an alias of it when the
// compiler floor has C++23. Not for our own bugs: those are assertions. Thread rule: plain values,
// no sharing.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace sidetrack {

enum class ErrorCode : std::uint8_t {
  kNotFound,
  kUnsupported,
  kPermission,
  kInvalid,
  kExists,
  kFull,
  kBusy,
  kIo,
  kInternal,
};

// What went wrong. Callers branch on `code`; people read `message` ("attach connect4: open cgroup
// /x: permission denied").
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  int error_number = 0;  // errno at the time, 0 if none
  std::string message;

  // The same error with "context: " put before its message.
  [[nodiscard]] Error within(std::string_view context) const {
    return Error{code, error_number, std::string(context) + ": " + message};
  }
};

// The ErrorCode that fits an errno value.
[[nodiscard]] ErrorCode error_code_of(int error_number);

// An Error for a failed system call: `what` plus the text of `error_number`.
[[nodiscard]] Error errno_error(std::string_view what, int error_number);

// An Error without errno.
[[nodiscard]] inline Error make_error(ErrorCode code, std::string message) {
  return Error{code, 0, std::move(message)};
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Error error)
      : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  [[nodiscard]] T& value() & { return std::get<0>(state_); }
  [[nodiscard]] const T& value() const& { return std::get<0>(state_); }
  [[nodiscard]] T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  [[nodiscard]] const Error& error() const { return std::get<1>(state_); }
  [[nodiscard]] T value_or(T fallback) const& {
    return has_value() ? value() : std::move(fallback);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error)
      : failed_(true), error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool has_value() const { return !failed_; }
  explicit operator bool() const { return has_value(); }
  [[nodiscard]] const Error& error() const { return error_; }

 private:
  bool failed_ = false;
  Error error_;
};

}  // namespace sidetrack

// Leaves the function with the error of `expression`, if it has one. The only propagation macro.
#define ST_TRY(expression)                             \
  do {                                                 \
    if (auto&& st_result = (expression); !st_result) { \
      return st_result.error();                        \
    }                                                  \
  } while (false)
