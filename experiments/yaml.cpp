#include "experiments/yaml.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>

namespace qlora {
namespace {

constexpr int64_t kMostNodes = 1'000'000;
constexpr int kDeepest = 100;

Where place(const std::string& origin, const YAML::Mark& mark) {
  if (mark.is_null()) return {origin, 0, 0};
  return {origin, mark.line + 1, mark.column + 1};
}

// Turns yaml-cpp's nodes into ours; counts them, because aliases may unfold without end.
class Converter {
 public:
  explicit Converter(std::string origin) : origin_(std::move(origin)) {}

  YamlNode convert(const YAML::Node& node, int depth) {
    YamlNode out;
    out.where = place(origin_, node.Mark());
    QLORA_CHECK(++nodes_ <= kMostNodes, usage, "{}: the file unfolds into more than {} values",
                out.where.text(), kMostNodes);
    QLORA_CHECK(depth < kDeepest, usage, "{}: nested deeper than {}", out.where.text(), kDeepest);
    if (node.IsScalar()) {
      out.quoted = node.Tag() == "!";
      out.text = node.Scalar();
      bool empty = !out.quoted && (out.text.empty() || out.text == "~" || out.text == "null");
      out.kind = empty ? YamlNode::Kind::null : YamlNode::Kind::scalar;
    } else if (node.IsSequence()) {
      out.kind = YamlNode::Kind::list;
      for (const auto& item : node) out.items.push_back(convert(item, depth + 1));
    } else if (node.IsMap()) {
      out.kind = YamlNode::Kind::map;
      for (const auto& pair : node) add(out, pair.first, pair.second, depth);
    }
    return out;
  }

 private:
  void add(YamlNode& map, const YAML::Node& key, const YAML::Node& value, int depth) {
    Where where = place(origin_, key.Mark());
    QLORA_CHECK(key.IsScalar(), usage, "{}: a key must be a plain word", where.text());
    const std::string& name = key.Scalar();
    QLORA_CHECK(name != "<<", usage, "{}: merge keys (<<) are not supported; name the file under `base:`",
                where.text());
    auto same = [&](const YamlNode::Entry& e) { return e.key == name; };
    auto first = std::find_if(map.entries.begin(), map.entries.end(), same);
    QLORA_CHECK(first == map.entries.end(), usage, "{}: key `{}` is given twice; first on line {}",
                where.text(), name, first->where.line);
    map.entries.push_back({name, where, convert(value, depth + 1)});
  }

  std::string origin_;
  int64_t nodes_ = 0;
};

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry.value;
  return nullptr;
}

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "nothing";
    case YamlNode::Kind::scalar:
      return "`" + node.text + "`";
    case YamlNode::Kind::list:
      return "a list";
    case YamlNode::Kind::map:
      return "a map";
  }
  return {};
}

YamlNode parse_yaml(std::string_view text, const std::string& origin) {
  try {
    std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    QLORA_CHECK(documents.size() <= 1, usage, "{}: {} documents in one file; expected one", origin,
                documents.size());
    if (documents.empty()) {
      YamlNode nothing;
      nothing.where = {origin, 1, 1};
      return nothing;
    }
    return Converter(origin).convert(documents[0], 0);
  } catch (const YAML::Exception& e) {
    fail(ErrorKind::usage, "{}: not valid YAML: {}", place(origin, e.mark).text(), e.msg);
  }
}

YamlNode read_yaml(const Path& path) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const Error& e) {
    fail(ErrorKind::usage, "{}", e.what());
  }
  return parse_yaml(text, path.string());
}

}  // namespace qlora
