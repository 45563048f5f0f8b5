// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/source_pki.h"

#include <fstream>
#include <utility>
#include <vector>

#include "tests/lab/process.h"

namespace sidetrack::tests {
namespace {

Result<void> openssl(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "openssl");
  const auto ran = lab::run_command({.arguments = std::move(arguments)});
  if (!ran) {
    return make_error(ErrorCode::kNotFound, "openssl: " + ran.error().message);
  }
  return ran->exit_status == 0 ? Result<void>()
                               : make_error(ErrorCode::kInternal, "openssl: " + ran->output);
}

const std::vector<std::string> kNewKey = {"-newkey", "ec", "-pkeyopt",
                                          "ec_paramgen_curve:prime256v1", "-nodes"};

std::vector<std::string> join(std::vector<std::string> first,
                              const std::vector<std::string>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace

Result<Pki> Pki::create(std::filesystem::path folder, std::string name) {
  Pki pki(std::move(folder), std::move(name));
  ST_TRY(openssl(join(join({"req", "-x509"}, kNewKey),
                      {"-days", "2", "-subj", "/CN=" + pki.name_, "-keyout",
                       pki.file(pki.name_ + ".key"), "-out", pki.authority()})));
  return pki;
}

Result<void> Pki::issue(const std::string& name, const std::string& subject,
                        const std::string& address) const {
  std::ofstream(file(name + ".ext"))
      << "extendedKeyUsage=serverAuth,clientAuth\n"
         "subjectAltName=DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:"
      << address << "\n";
  ST_TRY(openssl(join(join({"req"}, kNewKey), {"-subj", subject, "-keyout", file(name + ".key"),
                                               "-out", file(name + ".csr")})));
  return openssl({"x509", "-req", "-in", file(name + ".csr"), "-CA", authority(), "-CAkey",
                  file(name_ + ".key"), "-CAcreateserial", "-days", "2", "-out",
                  file(name + ".crt"), "-extfile", file(name + ".ext")});
}

Result<void> Pki::make_signing_pair(const std::string& name) const {
  ST_TRY(openssl({"genrsa", "-out", file(name + ".key"), "2048"}));
  return openssl({"rsa", "-in", file(name + ".key"), "-pubout", "-out", file(name + ".pub")});
}

}  // namespace sidetrack::tests
