#include "eval/tasks/harness_files.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace qlora {
namespace {

using Ordered = nlohmann::ordered_json;

std::string file_name(const std::string& model) {
  std::string name;
  for (char c : model) {
    const bool bad = std::string_view("\"<>:/|\\?*[]").find(c) != std::string_view::npos;
    if (!bad) name += c;
    if (bad && !name.ends_with("__")) name += "__";
  }
  return name.empty() ? "model" : name;
}

Ordered number(double value) {
  return std::isfinite(value) ? Ordered(value) : Ordered(nullptr);
}

// One entry a metric, "acc,none", with its standard error.
Ordered scores_of(std::span<const TaskScore> scores, const std::string& part, const std::string& name,
                  const std::string& alias) {
  Ordered out = {{"name", name}, {"alias", alias}};
  for (const TaskScore& s : scores) {
    if (s.group != part) continue;
    out["sample_len"] = s.n;
    out[s.metric + "," + s.filter] = number(s.value);
    out[s.metric + "_stderr," + s.filter] = s.standard_error ? number(*s.standard_error) : Ordered("N/A");
  }
  return out;
}

Ordered scores_of(const HarnessGroup& g) {
  Ordered out = scores_of(g.scores, "", g.name, g.alias);
  for (const TaskScore& s : g.scores) out["sample_count"][s.metric + "," + s.filter] = s.n;
  return out;
}

std::vector<std::string> parts_of(const HarnessTask& t) {
  std::vector<std::string> groups;
  for (const TaskScore& s : t.report->scores)
    if (!s.group.empty() && (groups.empty() || groups.back() != s.group)) groups.push_back(s.group);
  return groups;
}

Ordered configuration(const HarnessTask& t) {
  Ordered metrics = Ordered::array();
  for (const Metric& m : t.task->metrics)
    metrics.push_back({{"metric", m.name}, {"filter", m.filter}, {"higher_is_better", m.higher_is_better}});
  const char* kind = t.task->kind == TaskKind::choice         ? "multiple_choice"
                     : t.task->kind == TaskKind::continuation ? "loglikelihood"
                     : t.task->kind == TaskKind::rolling      ? "loglikelihood_rolling"
                                                              : "generate_until";
  Ordered config = {{"task", t.task->name},
                    {"dataset_path", t.data->path.string()},
                    {"output_type", kind},
                    {"num_fewshot", t.plan->shots},
                    {"metric_list", metrics},
                    {"metadata", {{"version", t.task->version}}},
                    {"data_sha256", t.data->content_hash},
                    {"request_sha256", t.plan->request_hash}};
  if (t.task->kind == TaskKind::generate)
    config["generation_kwargs"] = {{"until", t.task->until},
                                   {"do_sample", false},
                                   {"temperature", 0.0},
                                   {"max_gen_toks", t.plan->max_new_tokens}};
  return config;
}

// As the harness writes what a model said: everything as text.
std::string pair_text(const TaskItemResult& r, size_t i) {
  return i < r.greedy.size() && r.greedy[i] ? "True" : "False";
}

std::string target_of(const Task& task, const TaskItem& item) {
  if (task.kind == TaskKind::choice) return std::to_string(item.gold);
  if (!item.targets.empty()) return item.targets[0];
  return item.continuations[0];
}

Ordered arguments_of(const HarnessTask& t, std::span<const TaskRequest> requests) {
  Ordered all = Ordered::object();
  for (size_t i = 0; i < requests.size(); ++i) {
    Ordered& one = all[fmt::format("gen_args_{}", i)];
    if (t.task->kind == TaskKind::rolling) {
      one["arg_0"] = t.data->items[requests[i].item].continuations[0];
      break;  // its windows are one request
    }
    one["arg_0"] = requests[i].context;
    if (t.task->kind == TaskKind::generate) {
      one["arg_1"] = configuration(t)["generation_kwargs"];
    } else {
      one["arg_1"] = requests[i].continuation;
    }
  }
  return all;
}

Ordered responses_of(const Task& task, const TaskItemResult& r, bool nested) {
  Ordered all = Ordered::array();
  if (task.kind == TaskKind::generate) all.push_back(nested ? Ordered::array({r.text}) : Ordered(r.text));
  for (size_t i = 0; i < r.log_likelihoods.size(); ++i) {
    const std::string ll = fmt::format("{}", r.log_likelihoods[i]);
    Ordered one = task.kind == TaskKind::rolling ? Ordered(ll)
                  : r.greedy.empty()             ? Ordered::array({ll})  // not known
                                                 : Ordered::array({ll, pair_text(r, i)});
    all.push_back(nested ? Ordered::array({one}) : one);
  }
  return all;
}

void add_task(Ordered& out, Ordered& hashes, const HarnessTask& t) {
  const std::string& name = t.task->name;
  out["results"][name] = scores_of(t.report->scores, "", name, t.alias.empty() ? name : t.alias);
  for (const std::string& part : parts_of(t)) {
    const std::string whole = name + "_" + part;
    out["results"][whole] = scores_of(t.report->scores, part, whole, whole);
    out["group_subtasks"][name].push_back(whole);
  }
  out["configs"][name] = configuration(t);
  out["versions"][name] = t.task->version;
  out["n-shot"][name] = t.plan->shots;
  for (const Metric& m : t.task->metrics) out["higher_is_better"][name][m.name] = m.higher_is_better;
  const size_t original = t.original > 0 ? t.original : t.data->items.size();
  out["n-samples"][name] = {{"original", original}, {"effective", t.plan->asked.size()}};
  hashes[name] = t.plan->request_hash;
}

void add_group(Ordered& out, const HarnessGroup& g) {
  out["results"][g.name] = out["groups"][g.name] = scores_of(g);
  out["group_subtasks"][g.name] = g.members;
  out["versions"][g.name] = g.version;
  for (const char* of_members : {"n-shot", "higher_is_better"})
    if (out[of_members].contains(g.members.front()))
      out[of_members][g.name] = out[of_members][g.members.front()];
}

}  // namespace

std::string harness_results(const HarnessInfo& info, std::span<const HarnessTask> tasks,
                            std::span<const HarnessGroup> groups) {
  Ordered out = {{"results", Ordered::object()},  {"group_subtasks", Ordered::object()},
                 {"configs", Ordered::object()},  {"versions", Ordered::object()},
                 {"n-shot", Ordered::object()},   {"higher_is_better", Ordered::object()},
                 {"n-samples", Ordered::object()}};
  Ordered hashes = Ordered::object();
  for (const HarnessTask& t : tasks) add_task(out, hashes, t);
  for (const HarnessGroup& g : groups) add_group(out, g);
  out["config"] = {{"model", "qlora"},
                   {"model_args", info.model_args},
                   {"model_dtype", info.dtype},
                   {"device", info.device},
                   {"limit", info.limit > 0 ? Ordered(info.limit) : Ordered(nullptr)},
                   {"bootstrap_iters", 0}};
  out["date"] = info.date;
  out["pretty_env_info"] = info.program;
  out["max_length"] = info.max_length;
  out["task_hashes"] = hashes;
  out["model_source"] = "qlora";
  out["model_name"] = info.model;
  out["model_name_sanitized"] = file_name(info.model);
  auto text_or_null = [](const std::string& text) { return text.empty() ? Ordered(nullptr) : Ordered(text); };
  out["system_instruction"] = text_or_null(info.system_instruction);
  out["fewshot_as_multiturn"] = info.fewshot_as_multiturn;
  out["chat_template"] = text_or_null(info.chat_template);
  out["total_evaluation_time_seconds"] = fmt::format("{}", info.seconds);
  return out.dump(2) + "\n";
}

std::string harness_samples(const HarnessTask& t) {
  std::string lines;
  size_t lo = 0;
  for (const TaskItemResult& r : t.report->results) {
    const TaskItem& item = t.data->items[r.item];
    size_t hi = lo;
    while (hi < t.plan->requests.size() && t.plan->requests[hi].item == r.item) ++hi;
    const auto requests = std::span(t.plan->requests).subspan(lo, hi - lo);
    lo = hi;
    std::vector<std::string> filters;
    for (const Metric& m : t.task->metrics)
      if (filters.empty() || filters.back() != m.filter) filters.push_back(m.filter);
    for (const std::string& filter : filters) {
      Ordered line = {{"doc_id", item.index}};
      if (!item.group.empty()) line["group"] = item.group;
      line["doc"] = Ordered::parse(item.document);
      line["target"] = target_of(*t.task, item);
      line["arguments"] = arguments_of(t, requests);
      line["resps"] = responses_of(*t.task, r, true);
      line["filtered_resps"] = responses_of(*t.task, r, false);
      for (size_t f = 0; f < t.task->filters.size(); ++f)
        if (t.task->filters[f].name == filter) line["filtered_resps"] = Ordered::array({r.extracted[f]});
      line["filter"] = filter;
      line["metrics"] = Ordered::array();
      for (const Metric& m : t.task->metrics)
        if (m.filter == filter) line["metrics"].push_back(m.name);
      line["doc_hash"] = hex(sha256(item.document));
      line["prompt_hash"] = hex(sha256(requests[0].context));
      line["target_hash"] = hex(sha256(target_of(*t.task, item)));
      for (size_t m = 0; m < t.task->metrics.size(); ++m)
        if (t.task->metrics[m].filter == filter) line[t.task->metrics[m].name] = number(r.values[m].value);
      lines += line.dump() + "\n";
    }
  }
  return lines;
}

Path write_harness_files(const Path& out, const HarnessInfo& info, std::span<const HarnessTask> tasks,
                         std::span<const HarnessGroup> groups) {
  const Path folder = out / file_name(info.model);
  std::filesystem::create_directories(folder);
  const std::string date = replace_all(info.date, ":", "-");
  for (const HarnessTask& t : tasks)
    write_file(folder / ("samples_" + t.task->name + "_" + date + ".jsonl"), harness_samples(t));
  write_file(folder / ("results_" + date + ".json"), harness_results(info, tasks, groups));
  return folder;
}

}  // namespace qlora
