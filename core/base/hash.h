#pragma once
// SHA-256 of bytes, strings and files.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qlora {

using Digest = std::array<uint8_t, 32>;

// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  Digest finish();  // once

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

Digest sha256(std::string_view text);
Digest sha256(std::span<const std::byte> bytes);
// Of a file's content. Throws Error(data) when it cannot be read.
Digest sha256_file(const std::filesystem::path&);

std::string hex(std::span<const uint8_t> bytes);  // lower case
std::string hex(const Digest&);
// REQUIRES: 64 hexadecimal digits; throws Error(data) otherwise.
Digest digest_from_hex(std::string_view);

}  // namespace qlora
