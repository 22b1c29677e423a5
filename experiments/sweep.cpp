#include "experiments/sweep.h"

#include <algorithm>
#include <set>

#include "core/base/log.h"
#include "core/base/names.h"
#include "experiments/grid.h"

namespace qlora {
namespace {

const std::vector<std::string> kOwnKeys = {"name",     "base",    "method",     "parameters", "zip",
                                           "exclude",  "include", "run_cap",    "runs",       "evals",
                                           "generate", "judge",   "tournaments"};
// Words of other tools' sweep files, and why they are refused.
const std::vector<std::string> kForeignKeys = {"metric",  "early_terminate", "when",
                                               "program", "command",         "seeds"};

// Reads one sweep file from top to bottom.
class Reader {
 public:
  Reader(const YamlNode& file, const Path& path) : file_(file), path_(path) {}

  Sweep read(const std::string& source, const std::vector<std::string>& overrides) {
    QLORA_CHECK(file_.kind == YamlNode::Kind::map, usage, "{}: expected `key: value` lines, found {}",
                file_.where.text(), describe(file_));
    Sweep sweep;
    sweep.source = source;
    sweep.name = path_.stem().string();
    read_top(sweep);
    for (const std::string& text : overrides) override_option(parse_assignment(text));
    std::vector<Settings> all = expand();
    if (cap_ > 0 && all.size() > static_cast<size_t>(cap_)) {
      sweep.left_out = all.size() - static_cast<size_t>(cap_);
      all.resize(static_cast<size_t>(cap_));
    }
    QLORA_CHECK(!all.empty(), usage, "{}: no run is left", path_.string());
    check_judges_of_tournaments(sweep);
    sweep.varied = varied(all);
    name_runs(sweep, all);
    return sweep;
  }

 private:
  void read_top(Sweep& sweep) {
    // The base comes first, wherever it stands: everything else in the file overrides it.
    if (const YamlNode* base = file_.find("base")) read_base(*base, path_);
    std::map<std::string, std::string> seen;
    for (const YamlNode::Entry& entry : file_.entries) read_top_entry(entry, sweep, seen);
    override_with(base_, own_);
    QLORA_CHECK(method_ == "list" || runs_ == nullptr, usage, "{}: `runs` needs `method: list`",
                runs_->where.text());
    QLORA_CHECK(method_ == "grid" || runs_ != nullptr, usage, "{}: `method: list` needs `runs`",
                file_.where.text());
  }

  void read_top_entry(const YamlNode::Entry& entry, Sweep& sweep, std::map<std::string, std::string>& seen) {
    const std::string& key = entry.key;
    const YamlNode& value = entry.value;
    if (key == "base") return;
    if (key == "name") {
      sweep.name = std::get<std::string>(read_value(value, ValueKind::text, key));
      bool plain = !sweep.name.empty() && sweep.name[0] != '.' && sweep.name.find('/') == std::string::npos;
      QLORA_CHECK(plain, usage, "{}: `{}` cannot be the name of a folder", value.where.text(), sweep.name);
    } else if (key == "method") {
      method_ = std::get<std::string>(read_value(value, ValueKind::text, key));
      QLORA_CHECK(method_ == "grid" || method_ == "list", usage,
                  "{}: `method: {}` is not in this build; it can: grid, list", value.where.text(), method_);
    } else if (key == "run_cap") {
      cap_ = std::get<int64_t>(read_value(value, ValueKind::integer, key));
      QLORA_CHECK(cap_ > 0, usage, "{}: `run_cap` must be at least 1", value.where.text());
    } else if (key == "parameters") {
      QLORA_CHECK(value.kind == YamlNode::Kind::map, usage, "{}: `parameters` must be a map, found {}",
                  value.where.text(), describe(value));
      for (const YamlNode::Entry& parameter : value.entries) read_run_key(parameter, true, seen);
    } else if (key == "zip") {
      read_zip(value, axes_);
    } else if (key == "exclude") {
      for (const YamlNode& map : list_of(value, key)) exclude_.push_back(read_condition(map));
    } else if (key == "include") {
      include_ = list_of(value, key);
    } else if (key == "runs") {
      list_of(value, key);
      runs_ = &value;
    } else if (key == "evals") {
      sweep.evals = read_evals(value);
    } else if (key == "generate") {
      sweep.generates = read_generates(value);
    } else if (key == "judge") {
      sweep.judges = read_judges(value);
    } else if (key == "tournaments") {
      sweep.tournaments = read_tournaments(value);
    } else {
      read_run_key(entry, false, seen);
    }
  }

  static void check_judges_of_tournaments(const Sweep& sweep) {
    std::vector<std::string> names;
    for (const JudgeSpec& judge : sweep.judges) names.push_back(name_of(judge.setup));
    for (const TournamentSpec& spec : sweep.tournaments)
      QLORA_CHECK(spec.judge.empty() || std::find(names.begin(), names.end(), spec.judge) != names.end(),
                  usage, "{}: {}", spec.where.text(), unknown_name("judge", spec.judge, names));
  }

  // The option that an entry says something about; empty: none.
  static std::string option_set_by(const YamlNode::Entry& entry) {
    if (const Option* option = find_option_or_alias(entry.key)) return option->name;
    const Translation* translation = find_translation(entry.key);
    if (translation == nullptr) return "";
    if (entry.value.kind != YamlNode::Kind::scalar) return translation->option;
    const Entry said = read_entry(entry);
    return said.option == nullptr || said.yields ? "" : said.option->name;
  }

  void read_run_key(const YamlNode::Entry& entry, bool listed, std::map<std::string, std::string>& seen) {
    QLORA_CHECK(std::find(kForeignKeys.begin(), kForeignKeys.end(), entry.key) == kForeignKeys.end(), usage,
                "{}: `{}` is not in this build; a sweep can have: {}", entry.where.text(), entry.key,
                fmt::join(kOwnKeys, ", "));
    std::vector<std::string> known = known_keys();
    const Option* option = find_option_or_alias(entry.key);
    bool understood = option != nullptr || find_translation(entry.key) || find_unavailable(entry.key);
    if (!listed) known.insert(known.end(), kOwnKeys.begin(), kOwnKeys.end());
    QLORA_CHECK(understood, usage, "{}: {}", entry.where.text(), unknown_name("key", entry.key, known));
    if (std::string name = option_set_by(entry); !name.empty()) {
      auto [first, fresh] = seen.emplace(name, entry.key);
      QLORA_CHECK(fresh || first->second != entry.key, usage,
                  "{}: `{}` is given at the top and under `parameters`; keep one", entry.where.text(),
                  entry.key);
      QLORA_CHECK(fresh, usage, "{}: `{}` and `{}` are two names of one option (`{}`); keep one",
                  entry.where.text(), first->second, entry.key, name);
    }
    read_parameter(entry, listed, own_, axes_);
  }

  // A file, an inline map, or a list of both. Files are looked for beside the file that names them, then
  // here.
  void read_base(const YamlNode& node, const Path& from) {
    if (node.kind == YamlNode::Kind::list) {
      for (const YamlNode& item : node.items) read_base(item, from);
    } else if (node.kind == YamlNode::Kind::scalar) {
      Path path = from.parent_path() / node.text;
      if (!std::filesystem::exists(path)) path = node.text;
      QLORA_CHECK(std::filesystem::exists(path), usage, "{}: no file `{}`", node.where.text(), node.text);
      QLORA_CHECK(++files_ <= 100, usage, "{}: base files name each other in a circle", node.where.text());
      YamlNode file = read_yaml(path);
      YamlNode rest = file;
      std::erase_if(rest.entries, [](const YamlNode::Entry& e) { return e.key == "base"; });
      if (const YamlNode* base = file.find("base")) read_base(*base, path);
      read_settings(rest, base_);
    } else {
      read_settings(node, base_);
    }
  }

  const std::vector<YamlNode>& list_of(const YamlNode& node, const std::string& key) const {
    QLORA_CHECK(node.kind == YamlNode::Kind::list, usage, "{}: `{}` must be a list of maps, found {}",
                node.where.text(), key, describe(node));
    return node.items;
  }

  void override_option(const YamlNode::Entry& entry) {
    Settings constant;
    std::vector<SweepAxis> axis;
    read_parameter(entry, false, constant, axis);
    std::string name = constant.empty() ? (axis.empty() ? "" : axis[0].names[0]) : constant.begin()->first;
    if (name.empty()) return;
    for (SweepAxis& a : axes_) remove_column(a, name);
    std::erase_if(axes_, [](const SweepAxis& a) { return a.names.empty(); });
    override_with(base_, constant);
    override_with(overrides_, constant);
    for (SweepAxis& a : axis) axes_.push_back(std::move(a));
  }

  static void remove_column(SweepAxis& axis, const std::string& name) {
    auto at = std::find(axis.names.begin(), axis.names.end(), name);
    if (at == axis.names.end()) return;
    auto column = at - axis.names.begin();
    axis.names.erase(at);
    for (std::vector<Setting>& row : axis.rows) row.erase(row.begin() + column);
  }

  std::vector<Settings> expand() const {
    std::vector<Settings> all;
    if (method_ == "list") {
      QLORA_CHECK(axes_.empty(), usage, "{}: `method: list` has no axes; write every run under `runs`",
                  axes_.empty() ? "" : axes_[0].where.text());
      for (const YamlNode& run : runs_->items) all.push_back(over_base(run));
    } else {
      all = product(base_, axes_);
    }
    for (const Condition& condition : exclude_) {
      size_t removed = std::erase_if(all, [&](const Settings& s) { return matches(condition, s); });
      if (removed == 0) warn("{}: this `exclude` matches no run", condition.where.text());
    }
    for (const YamlNode& run : include_) all.push_back(over_base(run));
    return without_duplicates(std::move(all));
  }

  Settings over_base(const YamlNode& map) const {
    Settings settings = base_;
    read_settings(map, settings);
    override_with(settings, overrides_);
    return settings;
  }

  static std::vector<Settings> without_duplicates(std::vector<Settings> all) {
    std::set<std::map<std::string, OptionValue>> seen;
    std::erase_if(all, [&](const Settings& settings) {
      std::map<std::string, OptionValue> values;
      for (const auto& [name, setting] : settings) values[name] = setting.value;
      return !seen.insert(values).second;
    });
    return all;
  }

  // Options whose value is not the same in all runs: those of axes first, in file order.
  std::vector<std::string> varied(const std::vector<Settings>& all) const {
    std::vector<std::string> candidates, found;
    for (const SweepAxis& axis : axes_)
      candidates.insert(candidates.end(), axis.names.begin(), axis.names.end());
    for (const Option& option : options())
      if (std::find(candidates.begin(), candidates.end(), option.name) == candidates.end())
        candidates.push_back(option.name);
    for (const std::string& name : candidates)
      if (std::any_of(all.begin(), all.end(),
                      [&](const Settings& s) { return value_of(s, name) != value_of(all[0], name); }))
        found.push_back(name);
    return found;
  }

  static OptionValue value_of(const Settings& settings, const std::string& name) {
    auto it = settings.find(name);
    if (it != settings.end()) return it->second.value;
    const Option& option = *find_option(name);
    return option.fallback.empty() ? OptionValue(std::string()) : parse_option(option, option.fallback);
  }

  void name_runs(Sweep& sweep, const std::vector<Settings>& all) const {
    std::set<std::string> taken;
    for (const Settings& settings : all) {
      SweepRun run{.name = "", .settings = settings, .config = RunConfig(settings)};
      const std::string name = slug(sweep, run.config);
      run.name = name;
      for (int count = 2; !taken.insert(run.name).second; ++count)
        run.name = fmt::format("{}-{}", name, count);
      sweep.runs.push_back(std::move(run));
    }
  }

  static std::string slug(const Sweep& sweep, const RunConfig& config) {
    std::string out = config.text("run_name");
    for (const std::string& name : sweep.varied) {
      if (name == "run_name") continue;
      if (!out.empty()) out += '-';
      std::string value = to_string(config.at(name));
      bool path = name == "dataset" || name == "model_name_or_path";
      out += path ? short_name(value) : name + value;
    }
    if (out.empty()) out = sweep.name;
    for (char& c : out)
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '_';
    return out.substr(0, 80);
  }

  // "datasets/samples/alpaca_basics.json.gz" → "alpaca_basics"; a folder keeps its whole last part.
  static std::string short_name(const std::string& path) {
    Path last = Path(path).filename();
    if (last.empty()) last = Path(path).parent_path().filename();
    std::string name = last.string();
    for (const char* extension : {".gz", ".json", ".jsonl", ".csv", ".tsv"})
      if (name.ends_with(extension)) name.erase(name.size() - std::string_view(extension).size());
    return name;
  }

  const YamlNode& file_;
  Path path_;
  Settings base_, own_, overrides_;  // of the files under `base`, of this file, of the command line
  std::vector<SweepAxis> axes_;
  std::vector<Condition> exclude_;
  std::vector<YamlNode> include_;
  const YamlNode* runs_ = nullptr;
  std::string method_ = "grid";
  int64_t cap_ = 0;
  int files_ = 0;
};

}  // namespace

Sweep parse_sweep(const YamlNode& file, const std::string& source, const Path& path,
                  const std::vector<std::string>& overrides) {
  return Reader(file, path).read(source, overrides);
}

Sweep read_sweep(const Path& path, const std::vector<std::string>& overrides) {
  YamlNode file = read_yaml(path);
  return parse_sweep(file, read_file(path), path, overrides);
}

}  // namespace qlora
