#include "experiments/grid.h"

#include <algorithm>

#include "core/base/names.h"

namespace qlora {
namespace {

constexpr size_t kMostRuns = 100'000;

// The values that a node lists for an option, one Setting each.
std::vector<Setting> read_values(const YamlNode::Entry& entry, const YamlNode& list, std::string& name) {
  std::vector<Setting> values;
  QLORA_CHECK(!list.items.empty(), usage, "{}: `{}` has no values", list.where.text(), entry.key);
  for (const YamlNode& item : list.items) {
    Entry read = read_entry({entry.key, entry.where, item});
    QLORA_CHECK(read.option != nullptr, usage, "{}: `{}` cannot be varied over {}", item.where.text(),
                entry.key, describe(item));
    name = read.option->name;
    for (const Setting& earlier : values)
      QLORA_CHECK(earlier.value != read.value, usage, "{}: `{}` lists {} twice", item.where.text(), entry.key,
                  to_string(read.value));
    values.push_back({read.value, item.where});
  }
  return values;
}

void add_axis(const YamlNode::Entry& entry, const YamlNode& list, std::vector<SweepAxis>& axes) {
  SweepAxis axis;
  axis.where = entry.where;
  axis.names.resize(1);
  for (Setting& value : read_values(entry, list, axis.names[0])) axis.rows.push_back({std::move(value)});
  for (const SweepAxis& other : axes)
    QLORA_CHECK(std::find(other.names.begin(), other.names.end(), axis.names[0]) == other.names.end(), usage,
                "{}: `{}` is varied twice; first at {}", entry.where.text(), axis.names[0],
                other.where.text());
  axes.push_back(std::move(axis));
}

void add_constant(const YamlNode::Entry& entry, Settings& base) {
  Entry read = read_entry(entry);
  if (read.option != nullptr) give(base, read, entry.value.where);
}

// {a: [1, 2], b: [3, 4]}: columns of equal length.
SweepAxis read_columns(const YamlNode& map) {
  SweepAxis axis;
  axis.where = map.where;
  for (const YamlNode::Entry& entry : map.entries) {
    QLORA_CHECK(entry.value.kind == YamlNode::Kind::list, usage,
                "{}: `{}` must be a list, like its neighbours", entry.value.where.text(), entry.key);
    size_t count = entry.value.items.size();
    QLORA_CHECK(count > 0, usage, "{}: `{}` has no values", entry.value.where.text(), entry.key);
    QLORA_CHECK(axis.rows.empty() || axis.rows.size() == count, usage,
                "{}: `{}` has {} values, its neighbours have {}", entry.value.where.text(), entry.key, count,
                axis.rows.size());
    axis.rows.resize(count);
    for (size_t i = 0; i < count; ++i) {
      Entry read = read_entry({entry.key, entry.where, entry.value.items[i]});
      QLORA_CHECK(read.option != nullptr, usage, "{}: `{}` cannot be varied", entry.where.text(), entry.key);
      if (i == 0) {
        bool fresh = std::find(axis.names.begin(), axis.names.end(), read.option->name) == axis.names.end();
        QLORA_CHECK(fresh, usage, "{}: `{}` is varied twice", entry.where.text(), read.option->name);
        axis.names.push_back(read.option->name);
      }
      axis.rows[i].push_back({read.value, entry.value.items[i].where});
    }
  }
  return axis;
}

// - {a: 1, b: 3}
// - {a: 2, b: 4}: rows that name the same options.
SweepAxis read_rows(std::span<const YamlNode> maps) {
  SweepAxis axis;
  axis.where = maps[0].where;
  for (const YamlNode& map : maps) {
    Settings row;
    read_settings(map, row);
    std::vector<std::string> names;
    for (const auto& [name, setting] : row) names.push_back(name);
    if (axis.names.empty()) axis.names = names;
    QLORA_CHECK(names == axis.names, usage, "{}: rows of `zip` must name the same options: {}",
                map.where.text(), fmt::join(axis.names, ", "));
    QLORA_CHECK(!names.empty(), usage, "{}: this row of `zip` sets nothing", map.where.text());
    axis.rows.emplace_back();
    for (auto& [name, setting] : row) axis.rows.back().push_back(std::move(setting));
  }
  return axis;
}

bool is_columns(const YamlNode& map) {
  return std::any_of(map.entries.begin(), map.entries.end(),
                     [](const YamlNode::Entry& e) { return e.value.kind == YamlNode::Kind::list; });
}

}  // namespace

void read_parameter(const YamlNode::Entry& entry, bool listed, Settings& base, std::vector<SweepAxis>& axes) {
  const YamlNode& node = entry.value;
  if (node.kind == YamlNode::Kind::list) {
    const Option* option = find_option_or_alias(entry.key);
    bool is_value = !listed && option != nullptr && option->kind == ValueKind::list;
    return is_value ? add_constant(entry, base) : add_axis(entry, node, axes);
  }
  if (node.kind != YamlNode::Kind::map) return add_constant(entry, base);
  const YamlNode* value = node.find("value");
  const YamlNode* values = node.find("values");
  for (const YamlNode::Entry& e : node.entries)
    QLORA_CHECK(e.key == "value" || e.key == "values", usage,
                "{}: `{}` is not in this build; it can: value, values", e.where.text(), e.key);
  QLORA_CHECK((value != nullptr) != (values != nullptr), usage, "{}: `{}` needs either `value` or `values`",
              node.where.text(), entry.key);
  if (value != nullptr) return add_constant({entry.key, entry.where, *value}, base);
  QLORA_CHECK(values->kind == YamlNode::Kind::list, usage, "{}: `values` must be a list, found {}",
              values->where.text(), describe(*values));
  add_axis(entry, *values, axes);
}

void read_zip(const YamlNode& list, std::vector<SweepAxis>& axes) {
  QLORA_CHECK(list.kind == YamlNode::Kind::list, usage, "{}: `zip` must be a list of maps, found {}",
              list.where.text(), describe(list));
  QLORA_CHECK(!list.items.empty(), usage, "{}: `zip` has no entries", list.where.text());
  std::vector<SweepAxis> found;
  std::vector<YamlNode> rows;
  for (const YamlNode& map : list.items) {
    QLORA_CHECK(map.kind == YamlNode::Kind::map && !map.entries.empty(), usage,
                "{}: every entry of `zip` must be a map, found {}", map.where.text(), describe(map));
    if (is_columns(map)) {
      found.push_back(read_columns(map));
    } else {
      rows.push_back(map);
    }
  }
  if (!rows.empty()) found.push_back(read_rows(rows));
  for (SweepAxis& axis : found) {
    for (const SweepAxis& other : axes)
      for (const std::string& name : axis.names)
        QLORA_CHECK(std::find(other.names.begin(), other.names.end(), name) == other.names.end(), usage,
                    "{}: `{}` is varied twice; first at {}", axis.where.text(), name, other.where.text());
    axes.push_back(std::move(axis));
  }
}

std::vector<Settings> product(const Settings& base, const std::vector<SweepAxis>& axes) {
  size_t count = 1;
  for (const SweepAxis& axis : axes) {
    count *= axis.rows.size();
    QLORA_CHECK(count <= kMostRuns, usage, "{}: the grid has more than {} runs", axis.where.text(),
                kMostRuns);
  }
  std::vector<Settings> all = {base};
  for (const SweepAxis& axis : axes) {
    std::vector<Settings> next;
    for (const Settings& settings : all)
      for (const std::vector<Setting>& row : axis.rows) {
        Settings point;
        for (size_t i = 0; i < row.size(); ++i) point[axis.names[i]] = row[i];
        next.push_back(settings);
        override_with(next.back(), point);
      }
    all = std::move(next);
  }
  return all;
}

Condition read_condition(const YamlNode& map) {
  QLORA_CHECK(map.kind == YamlNode::Kind::map && !map.entries.empty(), usage,
              "{}: a condition must be a map of options, found {}", map.where.text(), describe(map));
  Condition condition;
  condition.where = map.where;
  for (const YamlNode::Entry& entry : map.entries) {
    const Option* option = find_option_or_alias(entry.key);
    QLORA_CHECK(option != nullptr, usage, "{}: {}", entry.where.text(),
                unknown_name("key", entry.key, known_keys()));
    std::vector<OptionValue>& values = condition.any_of[option->name];
    if (entry.value.kind == YamlNode::Kind::list && option->kind != ValueKind::list) {
      for (const YamlNode& item : entry.value.items) values.push_back(read_option(*option, item));
    } else {
      values.push_back(read_option(*option, entry.value));
    }
  }
  return condition;
}

bool matches(const Condition& condition, const Settings& settings) {
  for (const auto& [name, values] : condition.any_of) {
    const Option& option = *find_option(name);
    auto it = settings.find(name);
    if (it == settings.end() && option.required) return false;
    OptionValue value = it != settings.end()      ? it->second.value
                        : option.fallback.empty() ? OptionValue(std::string())
                                                  : parse_option(option, option.fallback);
    if (std::find(values.begin(), values.end(), value) == values.end()) return false;
  }
  return true;
}

}  // namespace qlora
