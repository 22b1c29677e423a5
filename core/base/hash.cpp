#include "core/base/hash.h"

#include <openssl/evp.h>

#include "core/base/check.h"
#include "core/base/file.h"

namespace qlora {

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  QLORA_CHECK(EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr) == 1, failure,
              "SHA-256 is not available");
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size());
  return *this;
}
Sha256& Sha256::update(std::string_view text) {
  return update(std::as_bytes(std::span(text)));
}

Digest Sha256::finish() {
  Digest d{};
  EVP_DigestFinal_ex(impl_->context, d.data(), nullptr);
  return d;
}

Digest sha256(std::string_view text) {
  return Sha256().update(text).finish();
}
Digest sha256(std::span<const std::byte> bytes) {
  return Sha256().update(bytes).finish();
}
Digest sha256_file(const std::filesystem::path& path) {
  return sha256(MappedFile(path).bytes());
}

std::string hex(std::span<const uint8_t> bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string s;
  s.reserve(bytes.size() * 2);
  for (uint8_t b : bytes) {
    s += digits[b >> 4];
    s += digits[b & 15];
  }
  return s;
}
std::string hex(const Digest& d) {
  return hex(std::span<const uint8_t>(d));
}

Digest digest_from_hex(std::string_view text) {
  auto value = [&](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    fail(ErrorKind::data, "`{}` is not a SHA-256: character `{}` is no hexadecimal digit", text, c);
  };
  QLORA_CHECK(text.size() == 64, data, "`{}` is not a SHA-256: expected 64 hexadecimal digits, found {}",
              text, text.size());
  Digest d{};
  for (size_t i = 0; i < d.size(); ++i)
    d[i] = static_cast<uint8_t>(value(text[2 * i]) * 16 + value(text[2 * i + 1]));
  return d;
}

}  // namespace qlora
