#include "eval/tasks/harness_files.h"

#include <cmath>
#include <ctime>
#include <map>

#include "eval/tasks/harness_samples.h"

namespace qlora {
namespace {

using Ordered = nlohmann::ordered_json;

// A run of characters that names of files cannot have is "__".
std::string file_name(const std::string& model) {
  constexpr std::string_view kBad = "\"<>:/|\\?*[]";
  std::string name;
  for (size_t i = 0; i < model.size(); ++i) {
    const bool bad = kBad.find(model[i]) != std::string_view::npos;
    if (!bad) name += model[i];
    if (bad && (i == 0 || kBad.find(model[i - 1]) == std::string_view::npos)) name += "__";
  }
  return name.empty() ? "model" : name;
}

const std::string& model_of(const HarnessInfo& info) {
  return info.adapter.empty() ? info.model : info.adapter;
}

Ordered text_or_null(const std::string& text) {
  return text.empty() ? Ordered(nullptr) : Ordered(text);
}

Ordered hash_or_null(const std::string& text) {
  return text.empty() ? Ordered(nullptr) : Ordered(hex(sha256(text)));
}

// Seconds since 1970.
double unix_time(const std::string& utc) {
  std::tm t{};
  double seconds = 0;
  const int read = std::sscanf(utc.c_str(), "%d-%d-%dT%d:%d:%lf", &t.tm_year, &t.tm_mon, &t.tm_mday,
                               &t.tm_hour, &t.tm_min, &seconds);
  QLORA_CHECK(read == 6, failure, "`{}` is no time", utc);
  t.tm_year -= 1900;
  t.tm_mon -= 1;
  return static_cast<double>(::timegm(&t)) + seconds;
}

// Versions of tasks are numbers there; ours that are names stay names.
Ordered version_of(const std::string& text) {
  if (text.find_first_not_of("0123456789.") != std::string::npos) return text;
  return std::stod(text);
}

const char* name_of(Aggregation how) {
  switch (how) {
    case Aggregation::mean:
      return "mean";
    case Aggregation::f1:
      return "f1";
    case Aggregation::mcc:
      return "matthews_corrcoef";
    case Aggregation::pearson:
      return "pearson";
    case Aggregation::spearman:
      return "spearman";
    case Aggregation::perplexity:
      return "perplexity";
    case Aggregation::weighted_perplexity:
      return "weighted_perplexity";
    case Aggregation::weighted_bits:
      return "bits_per_byte";
    case Aggregation::mean_of_groups:
      return "mean_of_groups";
  }
  return "";
}

bool is_harness_score(const Task& task, const TaskScore& score) {
  return std::all_of(task.metrics.begin(), task.metrics.end(), [&](const Metric& m) {
    return m.name != score.metric || m.filter != score.filter || m.in_harness;
  });
}

// One entry a metric, "acc,none", with its standard error.
Ordered scores_of(std::span<const TaskScore> scores, const std::string& part, const std::string& name,
                  const std::string& alias) {
  Ordered out = {{"name", name}, {"alias", alias}};
  for (const TaskScore& s : scores) {
    if (s.group != part) continue;
    out["sample_len"] = s.n;
    out[s.metric + "," + s.filter] = harness_number(s.value);
    out[s.metric + "_stderr," + s.filter] =
        s.standard_error ? harness_number(*s.standard_error) : Ordered("N/A");
  }
  return out;
}

Ordered scores_of(const HarnessGroup& g) {
  Ordered out = scores_of(g.scores, "", g.name, g.alias);
  for (const TaskScore& s : g.scores) out["sample_count"][s.metric + "," + s.filter] = s.n;
  return out;
}

// The parts that were asked something, in order of their names.
std::vector<std::string> parts_of(const HarnessTask& t) {
  std::vector<std::string> parts;
  if (!t.part.empty()) return parts;
  for (const TaskScore& s : t.report->scores)
    if (!s.group.empty() && (parts.empty() || parts.back() != s.group)) parts.push_back(s.group);
  return parts;
}

Ordered configuration(const HarnessTask& t) {
  Ordered metrics = Ordered::array();
  for (const Metric& m : t.task->metrics)
    if (m.in_harness)
      metrics.push_back({{"metric", m.name},
                         {"aggregation", name_of(m.aggregation)},
                         {"higher_is_better", m.higher_is_better}});
  const char* kind = t.task->kind == TaskKind::choice         ? "multiple_choice"
                     : t.task->kind == TaskKind::continuation ? "loglikelihood"
                     : t.task->kind == TaskKind::rolling      ? "loglikelihood_rolling"
                                                              : "generate_until";
  Ordered config = {{"task", harness_name(t)}, {"dataset_path", t.data->path.string()}};
  if (!t.part.empty()) config["dataset_name"] = t.part;
  if (t.task->takes_shots && t.plan->shots > 0)
    config["fewshot_config"] = {{"sampler", t.data->draw == FewshotDraw::first ? "first_n" : "default"}};
  config["num_fewshot"] = t.plan->shots;
  config["metric_list"] = metrics;
  config["output_type"] = kind;
  if (t.task->kind == TaskKind::generate) config["generation_kwargs"] = generation_arguments(t);
  config["repeats"] = 1;
  for (const AnswerFilter& filter : t.task->filters) config["filter_list"].push_back({{"name", filter.name}});
  config["should_decontaminate"] = false;
  config["metadata"] = {{"version", version_of(t.task->version)},
                        {"protocol", t.task->protocol},
                        {"data_sha256", t.data->content_hash},
                        {"request_sha256", t.plan->request_hash}};
  return config;
}

Ordered counts_of(const HarnessTask& t) {
  size_t original = t.original > 0 ? t.original : t.data->items.size(), effective = 0;
  if (!t.part.empty())
    original = static_cast<size_t>(std::count_if(t.data->items.begin(), t.data->items.end(),
                                                 [&](const TaskItem& i) { return i.group == t.part; }));
  for (const TaskItemResult& r : t.report->results) effective += is_of_part(t, r) ? 1 : 0;
  return {{"original", original}, {"effective", effective}};
}

void add_task(Ordered& out, const HarnessTask& t) {
  const std::string name = harness_name(t);
  std::vector<TaskScore> scores = t.report->scores;
  std::erase_if(scores, [&](const TaskScore& s) { return !is_harness_score(*t.task, s); });
  out["results"][name] = scores_of(scores, t.part, name, t.alias.empty() ? name : t.alias);
  for (const std::string& part : parts_of(t)) {
    const std::string whole = name + "_" + part;
    out["results"][whole] = scores_of(scores, part, whole, whole);
  }
  out["configs"][name] = configuration(t);
  out["versions"][name] = version_of(t.task->version);
  out["n-shot"][name] = t.plan->shots;
  for (const Metric& m : t.task->metrics)
    if (m.in_harness) out["higher_is_better"][name][m.name] = m.higher_is_better;
  out["n-samples"][name] = counts_of(t);
}

void add_group(Ordered& out, const HarnessGroup& g) {
  out["results"][g.name] = out["groups"][g.name] = scores_of(g);
  out["group_subtasks"][g.name] = g.members;
  out["versions"][g.name] = g.version;
  for (const char* of_members : {"n-shot", "higher_is_better"})
    if (out[of_members].contains(g.members.front()))
      out[of_members][g.name] = out[of_members][g.members.front()];
}

// Objects that the harness writes in order of their names.
void sort_keys(Ordered& object) {
  std::map<std::string, Ordered> sorted;
  for (auto& [key, value] : object.items()) sorted[key] = value;
  object = Ordered::object();
  for (auto& [key, value] : sorted) object[key] = value;
}

Ordered model_config(const HarnessInfo& info) {
  Ordered arguments = {{"pretrained", info.model}};
  if (!info.adapter.empty()) arguments["peft"] = info.adapter;
  for (const auto& [key, value] : info.model_args) arguments[key] = value;
  Ordered config = {
      {"model", "qlora"},          {"model_args", arguments},   {"model_num_parameters", info.parameters},
      {"model_dtype", info.dtype}, {"model_revision", nullptr}, {"model_sha", text_or_null(info.model_sha)}};
  if (!info.adapter.empty()) config["peft_sha"] = info.peft_sha;
  config.update({{"batch_size", nullptr},
                 {"batch_sizes", Ordered::array()},
                 {"device", info.device},
                 {"use_cache", nullptr},
                 {"limit", info.limit > 0 ? Ordered(info.limit) : Ordered(nullptr)},
                 {"bootstrap_iters", 0},
                 {"gen_kwargs", Ordered::object()},
                 {"random_seed", nullptr},
                 {"numpy_seed", nullptr},
                 {"torch_seed", nullptr},
                 {"fewshot_seed", info.fewshot_seed ? Ordered(*info.fewshot_seed) : Ordered(nullptr)}});
  return config;
}

Ordered token_of(const Tokenizer& tokenizer, int32_t id) {
  if (id < 0) return Ordered::array({nullptr, "None"});
  return Ordered::array({tokenizer.token(id), std::to_string(id)});
}

void add_surroundings(Ordered& out, const HarnessInfo& info, const Tokenizer& tokenizer) {
  out["git_hash"] = text_or_null(info.commit);
  out["date"] = unix_time(info.started);
  out["pretty_env_info"] = info.program;
  out["transformers_version"] = nullptr;
  out["lm_eval_version"] = nullptr;
  out["upper_git_hash"] = nullptr;
  const SpecialTokens& special = tokenizer.special();
  out["tokenizer_pad_token"] = token_of(tokenizer, special.pad);
  out["tokenizer_eos_token"] = token_of(tokenizer, special.eos);
  out["tokenizer_bos_token"] = token_of(tokenizer, special.bos);
  out["eot_token_id"] = special.eos < 0 ? Ordered(nullptr) : Ordered(special.eos);
  out["max_length"] = info.max_length;
}

void add_identity(Ordered& out, const HarnessInfo& info) {
  out["model_source"] = "qlora";
  out["model_name"] = model_of(info);
  out["model_name_sanitized"] = harness_folder(info);
  out["system_instruction"] = text_or_null(info.system_instruction);
  out["system_instruction_sha"] = hash_or_null(info.system_instruction);
  // Without a conversation there are no turns.
  out["fewshot_as_multiturn"] =
      info.chat_template.empty() ? Ordered(nullptr) : Ordered(info.fewshot_as_multiturn);
  out["chat_template"] = text_or_null(info.chat_template);
  out["chat_template_sha"] = hash_or_null(info.chat_template);
  out["total_evaluation_time_seconds"] = fmt::format("{}", info.seconds);
}

// The mean over parts by their size is the whole's; its error within them, as the harness pools it:
// sqrt(sum of (n_i - 1) n_i se_i^2 / (N - K) / N).
TaskScore pooled(const TaskScore& whole, std::span<const TaskScore> scores) {
  TaskScore out = whole;
  double sum = 0, n = 0, parts = 0;
  for (const TaskScore& s : scores) {
    if (s.group.empty() || s.metric != whole.metric || s.filter != whole.filter) continue;
    out.standard_error.reset();
    if (!s.standard_error) return out;
    const auto size = static_cast<double>(s.n);
    sum += (size - 1) * size * *s.standard_error * *s.standard_error;
    n += size;
    ++parts;
  }
  out.standard_error = std::sqrt(sum / (n - parts) / n);
  return out;
}

}  // namespace

HarnessParts harness_parts(const HarnessTask& t) {
  const std::string& filter = t.task->group_filter;
  if (t.task->group_version.empty()) return {{t}};
  HarnessParts out;
  HarnessGroup& group = out.groups.emplace_back();
  group.name = group.alias = t.task->name;
  group.version = t.task->group_version;
  for (const std::string& part : parts_of(t)) {
    HarnessTask& one = out.tasks.emplace_back(t);
    one.part = part;
    group.members.push_back(harness_name(one));
  }
  for (const TaskScore& s : t.report->scores)
    if (s.group.empty() && (filter.empty() || s.filter == filter))
      group.scores.push_back(pooled(s, t.report->scores));
  return out;
}

std::string harness_folder(const HarnessInfo& info) {
  return file_name(model_of(info));
}

std::string harness_results(const HarnessInfo& info, const Tokenizer& tokenizer,
                            std::span<const HarnessTask> tasks, std::span<const HarnessGroup> groups,
                            const std::map<std::string, std::string>& hashes) {
  Ordered out = {{"results", Ordered::object()}};
  if (!groups.empty()) out["groups"] = Ordered::object();
  for (const char* key : {"group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"})
    out[key] = Ordered::object();
  for (const HarnessTask& t : tasks) add_task(out, t);
  for (const HarnessGroup& g : groups) add_group(out, g);
  for (const char* key : {"configs", "versions", "n-shot", "higher_is_better"}) sort_keys(out[key]);
  out["config"] = model_config(info);
  add_surroundings(out, info, tokenizer);
  out["task_hashes"] = hashes;
  add_identity(out, info);
  return out.dump(2) + "\n";
}

Path write_harness_files(const Path& out, const HarnessInfo& info, const Tokenizer& tokenizer,
                         std::span<const HarnessTask> tasks, std::span<const HarnessGroup> groups) {
  const Path folder = out / harness_folder(info);
  std::filesystem::create_directories(folder);
  std::string date = replace_all(info.date, ":", "-");
  if (date.ends_with("Z")) date.pop_back();
  std::map<std::string, std::string> hashes;
  for (const HarnessTask& t : tasks) {
    const HarnessSamples samples = make_harness_samples(t);
    write_file(folder / ("samples_" + harness_name(t) + "_" + date + ".jsonl"), samples.lines);
    hashes[harness_name(t)] = samples.hash;
  }
  write_file(folder / ("results_" + date + ".json"), harness_results(info, tokenizer, tasks, groups, hashes));
  return folder;
}

}  // namespace qlora
