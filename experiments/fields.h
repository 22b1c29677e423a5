#pragma once
// The maps of a sweep file that are no options of runs: evaluations, answers, judges, tournaments.

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/names.h"
#include "experiments/option_value.h"

namespace qlora {

// The maps of a list; none where nothing is given. `what` names the list.
inline const std::vector<YamlNode>& items_of(const YamlNode& list, std::string_view what) {
  QLORA_CHECK(list.kind == YamlNode::Kind::list || list.kind == YamlNode::Kind::null, usage,
              "{}: `{}` must be a list of maps, found {}", list.where.text(), what, describe(list));
  for (const YamlNode& item : list.items)
    QLORA_CHECK(item.kind == YamlNode::Kind::map, usage, "{}: every entry of `{}` must be a map, found {}",
                item.where.text(), what, describe(item));
  return list.items;
}

// The fields of one entry; refuses those that nobody has asked for.
class Fields {
 public:
  Fields(const YamlNode& map, std::string what, std::vector<std::string> known)
      : map_(map), what_(std::move(what)) {
    for (const YamlNode::Entry& entry : map.entries)
      QLORA_CHECK(std::find(known.begin(), known.end(), entry.key) != known.end(), usage, "{}: {}",
                  entry.where.text(), unknown_name("key of " + what_, entry.key, known));
  }

  bool has(std::string_view key) const {
    const YamlNode* node = map_.find(key);
    return node != nullptr && node->kind != YamlNode::Kind::null;
  }
  const YamlNode& at(std::string_view key) const {
    QLORA_CHECK(has(key), usage, "{}: {} needs `{}`", map_.where.text(), what_, key);
    return *map_.find(key);
  }
  template <class T>
  void read(std::string_view key, ValueKind kind, T& into) const {
    if (has(key)) into = std::get<T>(read_value(at(key), kind, key));
  }
  void read(std::string_view key, int64_t& into, int64_t least) const {
    read(key, ValueKind::integer, into);
    if (has(key))
      QLORA_CHECK(into >= least, usage, "{}: `{}` must be at least {}", at(key).where.text(), key, least);
  }
  // One of a few words.
  void read_word(std::string_view key, std::string& into, const std::vector<std::string>& words) const {
    if (!has(key)) return;
    read(key, ValueKind::text, into);
    QLORA_CHECK(std::find(words.begin(), words.end(), into) != words.end(), usage, "{}: {}",
                at(key).where.text(), unknown_name(key, into, words));
  }

 private:
  const YamlNode& map_;
  std::string what_;
};

}  // namespace qlora
