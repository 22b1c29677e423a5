#pragma once
// The `normalizer` of a tokenizer.json: a text is rewritten before it is cut.

#include <memory>
#include <string>
#include <string_view>

#include "core/base/json.h"

namespace qlora {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // REQUIRES and gives valid UTF-8.
  virtual std::string apply(std::string text) const = 0;
};

// null gives none (nullptr). Knows Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents,
// Strip. Throws Error(data) naming `origin` for any other type.
std::unique_ptr<const Normalizer> make_normalizer(const Json* json, std::string_view origin);

}  // namespace qlora
