#pragma once
// Strict YAML with places: what a hand-written configuration file may contain, and nothing that surprises.
// Scalars stay text; their type is decided by the option that they are given to, so `no` is a word in a text
// field, `2e-4` is a number in a number field, and `010` never becomes eight.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/file.h"

namespace qlora {

struct YamlNode {
  enum class Kind { null, scalar, list, map };
  struct Entry;

  Kind kind = Kind::null;
  std::string text = {};             // of a scalar
  bool quoted = false;               // a scalar in quotes is text, whatever it looks like
  std::vector<YamlNode> items = {};  // of a list
  std::vector<Entry> entries = {};   // of a map, in file order, keys distinct
  Where where = {};

  const YamlNode* find(std::string_view key) const;  // in a map; null when absent
};

struct YamlNode::Entry {
  std::string key;
  Where where;  // of the key
  YamlNode value;
};

// "a list", "a map", "nothing", "`text`": for messages.
std::string describe(const YamlNode&);

// Parses one document. Throws Error(usage) with `origin`:line:column for bad syntax, equal keys in a map,
// merge keys
// (<<), keys that are not scalars, several documents, and documents that unfold (by aliases) into over a
// million nodes.
YamlNode parse_yaml(std::string_view text, const std::string& origin);
// The same of a file. An unreadable file is an Error(usage): it was named on the command line.
YamlNode read_yaml(const Path&);

}  // namespace qlora
