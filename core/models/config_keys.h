#pragma once
// Reading config.json, for the families' own readers.

#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/models/hf_config.h"

namespace qlora {

inline constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();
inline constexpr int64_t kMaxLayers = 1 << 16;

// A whole number that int64_t does not hold.
inline bool wraps(const Json& number) {
  return number.is_number_unsigned() && !std::in_range<int64_t>(number.get<uint64_t>());
}

// The keys of one JSON object; a null counts as absent.
class Keys {
 public:
  Keys(const Json& json, std::string origin) : json_(json), origin_(std::move(origin)) {
    QLORA_CHECK(json.is_object(), data, "{}: expected a JSON object", origin_);
  }

  const Json* find(const char* key) const {
    auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  bool is_null(const char* key) const { return json_.contains(key) && find(key) == nullptr; }
  int64_t whole(const char* key, int64_t fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_number_integer() && !wraps(*v), data, "{}: {} must be a whole number, found {}",
                origin_, key, v->dump());
    return v->get<int64_t>();
  }
  int64_t positive(const char* key, int64_t fallback, int64_t most = kMaxSize) const {
    int64_t v = whole(key, fallback);
    QLORA_CHECK(v > 0, data, "{}: {} must be positive, found {}", origin_, key, v);
    QLORA_CHECK(v <= most, data, "{}: {} must be at most {}, found {}", origin_, key, most, v);
    return v;
  }
  double number(const char* key, double fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_number(), data, "{}: {} must be a number, found {}", origin_, key, v->dump());
    return v->get<double>();
  }
  bool flag(const char* key, bool fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_boolean(), data, "{}: {} must be true or false, found {}", origin_, key, v->dump());
    return v->get<bool>();
  }
  std::string text(const char* key, const std::string& fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_string(), data, "{}: {} must be a string, found {}", origin_, key, v->dump());
    return v->get<std::string>();
  }
  // A number, a list of numbers, or nothing.
  std::vector<int32_t> ids(const char* key) const {
    const Json* v = find(key);
    if (v == nullptr) return {};
    std::vector<int32_t> all;
    for (const Json& id : v->is_array() ? *v : Json::array({*v})) {
      QLORA_CHECK(id.is_number_integer() && std::in_range<int32_t>(id.get<int64_t>()) && !wraps(id), data,
                  "{}: {} must hold token ids, found {}", origin_, key, v->dump());
      all.push_back(id.get<int32_t>());
    }
    return all;
  }
  const std::string& origin() const { return origin_; }

 private:
  const Json& json_;
  std::string origin_;
};

// The keys of rotary embedding, in both spellings. `theta_key` and `partial_key` are what files of
// transformers 4 call the base, and the share of a head that is turned (1 where the file says nothing:
// `partial`).
RopeConfig read_rope(const Keys&, const char* theta_key = "rope_theta", const char* partial_key = nullptr,
                     double partial = 1);

// rotary_dim of head_dim and what has been read of rotary embedding.
void set_rotary(const Keys&, HfConfig&);

// The activation that `key` names.
Activation read_activation(const Keys&, const char* key, const char* fallback);

// A family whose reader lies elsewhere: it sets everything that is not the same for all families.
struct ConfigReader {
  const char* model_type;
  void (*read)(const Keys&, HfConfig&);
};
// Those with LayerNorm (hf_config_layer_norm.cpp).
std::span<const ConfigReader> layer_norm_readers();

}  // namespace qlora
