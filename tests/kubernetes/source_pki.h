// SPDX-License-Identifier: Apache-2.0
// Certificates of a test's own, made by the openssl program in a folder: an authority, and what it
// signs.
#pragma once

#include <filesystem>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::tests {

class Pki {
 public:
  // Makes the authority NAME.crt and NAME.key. kNotFound: there is no openssl.
  [[nodiscard]] static Result<Pki> create(std::filesystem::path folder, std::string name = "ca");

  // NAME.crt and NAME.key: for 127.0.0.1, localhost and `address`, good for both ends of TLS.
  Result<void> issue(const std::string& name, const std::string& subject,
                     const std::string& address = "::1") const;
  // A pair for signing service account tokens: NAME.key, NAME.pub.
  Result<void> make_signing_pair(const std::string& name) const;

  [[nodiscard]] std::string authority() const { return file(name_ + ".crt"); }
  [[nodiscard]] std::string file(const std::string& name) const {
    return (folder_ / name).string();
  }

 private:
  Pki(std::filesystem::path folder, std::string name)
      : folder_(std::move(folder)), name_(std::move(name)) {}

  std::filesystem::path folder_;
  std::string name_;
};

}  // namespace sidetrack::tests
