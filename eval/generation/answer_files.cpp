#include "eval/generation/answer_files.h"

#include <array>
#include <nlohmann/json.hpp>

#include "core/base/json.h"

namespace qlora {
namespace {

using OrderedJson = nlohmann::ordered_json;

// As json.dumps: ASCII, ", " and ": " between things, keys in their order.
std::string python_text(const OrderedJson& value) {
  if (!value.is_structured()) return value.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!text.empty()) text += ", ";
    if (value.is_object()) text += OrderedJson(key).dump(-1, ' ', true) + ": ";
    text += python_text(item);
  }
  return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

// The fields that the release keeps of a question.
constexpr std::array kVicunaFields = {"question_id", "text", "category"};
constexpr std::array kOpenAssistantFields = {"input", "output", "message_id", "parent_id", "rank", "lang"};

}  // namespace

std::string_view stripped(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::string release_row(const Question& question, const std::string& prompt, const std::string& generation,
                        const std::string& truncated) {
  const auto asked = OrderedJson::parse(question.row);
  OrderedJson row = OrderedJson::object();
  auto keep = [&](const auto& fields) {
    for (const char* field : fields)
      if (asked.contains(field)) row[field] = asked.at(field);
  };
  if (asked.contains("message_id") && asked.contains("input")) {
    keep(kOpenAssistantFields);
  } else {
    keep(kVicunaFields);
  }
  row["prompt"] = prompt;
  row["generation"] = generation;
  row["generation_truncated"] = truncated;
  return python_text(row) + "\n";
}

std::string fastchat_row(const Question& question, const std::string& model_id,
                         std::span<const std::string> turns, double tstamp) {
  const auto asked = OrderedJson::parse(question.row);
  OrderedJson row = OrderedJson::object();
  row["question_id"] = asked.contains("question_id") ? asked.at("question_id") : asked.at("message_id");
  row["answer_id"] = answer_id(model_id, question.id, turns);
  row["model_id"] = model_id;
  OrderedJson choice = OrderedJson::object();
  choice["index"] = 0;
  choice["turns"] = OrderedJson(std::vector<std::string>(turns.begin(), turns.end()));
  row["choices"] = OrderedJson::array({choice});
  row["tstamp"] = tstamp;
  return python_text(row) + "\n";
}

std::string answer_id(std::string_view model_id, std::string_view question,
                      std::span<const std::string> turns) {
  // Lengths stand before the parts, so that no two lists of parts have one text.
  std::string text;
  auto add = [&](std::string_view part) {
    text.append(std::to_string(part.size())).append(":").append(part);
  };
  add(model_id);
  add(question);
  for (const std::string& turn : turns) add(turn);
  const Digest digest = sha256(text);
  constexpr std::string_view kAlphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  std::array<uint8_t, 16> number;
  std::copy_n(digest.begin(), number.size(), number.begin());
  std::string id;
  for (int i = 0; i < 22; ++i) {  // the digits of a 128-bit number to the base 57
    uint32_t rest = 0;
    for (uint8_t& byte : number) {
      const uint32_t value = rest * 256 + byte;
      byte = static_cast<uint8_t>(value / kAlphabet.size());
      rest = static_cast<uint32_t>(value % kAlphabet.size());
    }
    id.insert(id.begin(), kAlphabet[rest]);
  }
  return id;
}

}  // namespace qlora
