// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/result.h"

#include <system_error>

namespace sidetrack {

ErrorCode error_code_of(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ESRCH:
      return ErrorCode::kNotFound;
    case EPERM:
    case EACCES:
      return ErrorCode::kPermission;
    case EINVAL:
      return ErrorCode::kInvalid;
    case EEXIST:
    case EADDRINUSE:
      return ErrorCode::kExists;
    case ENOSPC:
    case E2BIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return ErrorCode::kFull;
    case EBUSY:
    case EAGAIN:
      return ErrorCode::kBusy;
    case ENOSYS:
    case EOPNOTSUPP:
      return ErrorCode::kUnsupported;
    default:
      return ErrorCode::kIo;
  }
}

Error errno_error(std::string_view what, int error_number) {
  return Error{error_code_of(error_number), error_number,
               std::string(what) + ": " + std::generic_category().message(error_number)};
}

}  // namespace sidetrack
