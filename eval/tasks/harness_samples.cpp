#include "eval/tasks/harness_samples.h"

#include <cmath>

namespace qlora {
namespace {

using Ordered = nlohmann::ordered_json;

// As Python writes a number: what a model said is text in these files.
std::string python_number(float value) {
  std::string text = fmt::format("{}", static_cast<double>(value));
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

std::string target_of(const Task& task, const TaskItem& item) {
  if (task.kind == TaskKind::choice) return std::to_string(item.gold);
  if (!item.targets.empty()) return item.targets[0];
  return item.continuations[0];
}

// What is asked, and for a text that is scored whole the text, whose windows are one request.
std::string prompt_of(const Task& task, const TaskItem& item, const TaskRequest& request) {
  return task.kind == TaskKind::rolling ? item.continuations[0] : request.context;
}

Ordered arguments_of(const HarnessTask& t, const TaskItem& item, std::span<const TaskRequest> requests) {
  Ordered all = Ordered::object();
  for (size_t i = 0; i < requests.size(); ++i) {
    Ordered& one = all[fmt::format("gen_args_{}", i)];
    one["arg_0"] = prompt_of(*t.task, item, requests[i]);
    if (t.task->kind == TaskKind::rolling) break;
    if (t.task->kind == TaskKind::generate) {
      one["arg_1"] = generation_arguments(t);
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
    const std::string ll = python_number(r.log_likelihoods[i]);
    const Ordered one =
        task.kind == TaskKind::rolling ? Ordered(ll) : Ordered::array({ll, r.greedy[i] ? "True" : "False"});
    all.push_back(nested ? Ordered::array({one}) : one);
  }
  return all;
}

Ordered value_of(const HarnessTask& t, const MetricValue& value) {
  if (t.task->kind != TaskKind::rolling) return harness_number(value.value);
  return Ordered::array({harness_number(value.value), static_cast<int64_t>(value.weight)});
}

std::vector<std::string> filters_of(const Task& task) {
  std::vector<std::string> filters;
  for (const Metric& m : task.metrics)
    if (std::find(filters.begin(), filters.end(), m.filter) == filters.end()) filters.push_back(m.filter);
  return filters;
}

Ordered sample(const HarnessTask& t, const TaskItemResult& r, std::span<const TaskRequest> requests,
               const std::string& filter) {
  const TaskItem& item = t.data->items[r.item];
  Ordered line = {{"doc_id", item.index}};
  line["doc"] = Ordered::parse(item.document);
  line["target"] = target_of(*t.task, item);
  line["arguments"] = arguments_of(t, item, requests);
  line["resps"] = responses_of(*t.task, r, true);
  line["filtered_resps"] = responses_of(*t.task, r, false);
  for (size_t f = 0; f < t.task->filters.size(); ++f)
    if (t.task->filters[f].name == filter) line["filtered_resps"] = Ordered::array({r.extracted[f]});
  line["filter"] = filter;
  line["metrics"] = Ordered::array();
  for (const Metric& m : t.task->metrics)
    if (m.filter == filter && m.in_harness) line["metrics"].push_back(m.name);
  line["doc_hash"] = hex(sha256(line["doc"].dump(2)));
  line["prompt_hash"] = hex(sha256(prompt_of(*t.task, item, requests[0])));
  line["target_hash"] = hex(sha256(target_of(*t.task, item)));
  for (size_t i = 0; i < t.task->metrics.size(); ++i)
    if (const Metric& m = t.task->metrics[i]; m.filter == filter && m.in_harness)
      line[m.name] = value_of(t, r.values[i]);
  return line;
}

}  // namespace

std::string harness_name(const HarnessTask& t) {
  return t.part.empty() ? t.task->name : t.task->name + "_" + t.part;
}

bool is_of_part(const HarnessTask& t, const TaskItemResult& r) {
  return t.part.empty() || t.data->items[r.item].group == t.part;
}

Ordered harness_number(double value) {
  return std::isfinite(value) ? Ordered(value) : Ordered(nullptr);
}

Ordered generation_arguments(const HarnessTask& t) {
  return {{"until", t.task->until},
          {"max_gen_toks", t.plan->max_new_tokens},
          {"do_sample", false},
          {"temperature", 0.0}};
}

HarnessSamples make_harness_samples(const HarnessTask& t) {
  HarnessSamples samples;
  std::string hashes;
  for (const std::string& filter : filters_of(*t.task)) {
    size_t lo = 0;
    for (const TaskItemResult& r : t.report->results) {
      size_t hi = lo;
      while (hi < t.plan->requests.size() && t.plan->requests[hi].item == r.item) ++hi;
      const auto requests = std::span(t.plan->requests).subspan(lo, hi - lo);
      lo = hi;
      if (!is_of_part(t, r)) continue;
      const Ordered line = sample(t, r, requests, filter);
      for (const char* hash : {"doc_hash", "prompt_hash", "target_hash"})
        hashes += line[hash].get<std::string>();
      samples.lines += line.dump() + "\n";
    }
  }
  samples.hash = hex(sha256(hashes));
  return samples;
}

}  // namespace qlora
