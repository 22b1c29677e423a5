#include "experiments/evals.h"

#include <set>

#include "core/text/chat_template.h"
#include "eval/tasks/mmlu_rows.h"
#include "experiments/config.h"
#include "experiments/fields.h"

namespace qlora {
namespace {

void read_times(const Fields& fields, EvalSpec& spec) {
  fields.read("every", spec.every, 1);
  if (!fields.has("at")) return;
  spec.at_start = spec.at_end = false;
  const YamlNode& node = fields.at("at");
  std::vector<std::string> words;
  fields.read("at", ValueKind::list, words);
  for (const std::string& word : words) {
    QLORA_CHECK(word == "start" || word == "end", usage,
                "{}: `at: {}` is not in this build; it can: start, end", node.where.text(), word);
    (word == "start" ? spec.at_start : spec.at_end) = true;
  }
}

EvalSpec read_mmlu_eval(const YamlNode& node) {
  Fields fields(
      node, "task mmlu",
      {"task", "data", "protocol", "split", "shots", "limit", "subjects", "samples", "max_length", "bos",
       "chat_template", "fewshot_as_multiturn", "system_instruction", "at", "every", "base"});
  EvalSpec spec;
  spec.task = "mmlu";
  spec.data = std::get<std::string>(read_value(fields.at("data"), ValueKind::text, "data"));
  fields.read_word("protocol", spec.mmlu.protocol, mmlu_protocol_names());
  fields.read_word("split", spec.mmlu.split, {"test", "val"});
  fields.read("shots", spec.mmlu.shots, 0);
  if (!fields.has("split")) spec.mmlu.split = rendered_split(spec.data, spec.mmlu);
  QLORA_CHECK(spec.mmlu.shots <= 5, usage, "{}: `shots` is at most 5", fields.at("shots").where.text());
  fields.read("limit", spec.mmlu.limit, 0);
  fields.read("subjects", ValueKind::list, spec.mmlu.subjects);
  fields.read("samples", spec.mmlu.samples, 0);
  fields.read("max_length", spec.mmlu.max_length, 1);
  fields.read_word("bos", spec.mmlu.bos, mmlu_bos_rules());
  std::vector<std::string> templates = mmlu_chat_templates();
  templates.emplace_back("auto");
  fields.read_word("chat_template", spec.mmlu.chat_template, templates);
  if (spec.mmlu.chat_template == "auto") spec.mmlu.chat_template = kOwnChatTemplate;
  if (bool turns = false; fields.has("fewshot_as_multiturn")) {
    fields.read("fewshot_as_multiturn", ValueKind::boolean, turns);
    spec.mmlu.fewshot_as_multiturn = turns;
  }
  fields.read("system_instruction", ValueKind::text, spec.mmlu.system_instruction);
  QLORA_CHECK(!spec.mmlu.fewshot_as_multiturn.value_or(false) || spec.mmlu.chat_template != "none", usage,
              "{}: `fewshot_as_multiturn` needs a `chat_template`",
              fields.at("fewshot_as_multiturn").where.text());
  fields.read("base", ValueKind::boolean, spec.base);
  read_times(fields, spec);
  QLORA_CHECK(!spec.at_start, usage, "{}: before training a run answers as its base: write `base: true`",
              fields.at("at").where.text());
  return spec;
}

EvalSpec read_loss_eval(const YamlNode& node) {
  Fields fields(node, "task loss", {"task", "at", "every"});
  EvalSpec spec;
  spec.task = "loss";
  read_times(fields, spec);
  return spec;
}

// A task of the registry.
EvalSpec read_task_eval(const YamlNode& node, const Task& task) {
  std::vector<std::string> known = {"task", "data", "limit", "parts", "max_length", "at", "every", "base"};
  if (task.takes_shots) known.insert(known.end(), {"shots", "examples", "fewshot_sampler", "fewshot_seed"});
  if (task.kind == TaskKind::rolling) known.push_back("stride");
  if (task.kind == TaskKind::generate) known.push_back("max_new_tokens");
  Fields fields(node, "task " + task.name, known);
  EvalSpec spec;
  spec.task = task.name;
  spec.data = std::get<std::string>(read_value(fields.at("data"), ValueKind::text, "data"));
  if (task.takes_shots) {
    fields.read("shots", spec.options.shots, 0);
    fields.read("examples", ValueKind::text, spec.options.examples);
    fields.read_word("fewshot_sampler", spec.options.fewshot_sampler, {"first_n", "lm_eval"});
    fields.read("fewshot_seed", spec.options.fewshot_seed, 0);
  }
  if (task.kind == TaskKind::rolling) fields.read("stride", spec.options.stride, 1);
  if (task.kind == TaskKind::generate) fields.read("max_new_tokens", spec.options.max_new_tokens, 1);
  fields.read("limit", spec.options.limit, 0);
  fields.read("max_length", spec.options.max_length, 1);
  fields.read("parts", ValueKind::list, spec.options.groups);
  fields.read("base", ValueKind::boolean, spec.base);
  read_times(fields, spec);
  QLORA_CHECK(!spec.at_start, usage, "{}: before training a run answers as its base: write `base: true`",
              fields.at("at").where.text());
  return spec;
}

// A list of names, or one, and where each stands.
void read_names(const Fields& fields, std::string_view key, std::vector<std::string>& names,
                std::vector<Where>& places) {
  fields.read(key, ValueKind::list, names);
  if (names.empty()) return;
  const YamlNode& node = fields.at(key);
  for (size_t i = 0; i < names.size(); ++i)
    places.push_back(i < node.items.size() ? node.items[i].where : node.where);
}

TournamentSpec read_tournament(const YamlNode& node) {
  Fields fields(node, "a tournament",
                {"name", "files", "preset", "systems", "votes", "model", "ties", "k", "orders", "rounds",
                 "position", "anchors", "answers", "interval", "cluster", "bootstrap", "seed", "judge"});
  TournamentSpec spec;
  spec.where = node.where;
  spec.name = std::get<std::string>(read_value(fields.at("name"), ValueKind::text, "name"));
  fields.read("files", ValueKind::list, spec.files);
  fields.read("judge", ValueKind::text, spec.judge);
  fields.read("preset", ValueKind::text, spec.preset);
  read_names(fields, "systems", spec.systems, spec.system_places);
  fields.read("k", ValueKind::number, spec.k);
  QLORA_CHECK(!fields.has("k") || spec.k > 0, usage, "{}: `k` must be above 0", fields.at("k").where.text());
  fields.read("orders", spec.orders, 1);
  fields.read("bootstrap", spec.bootstrap, 0);
  fields.read("seed", spec.seed, 0);
  read_names(fields, "anchors", spec.anchors, spec.anchor_places);
  fields.read("answers", ValueKind::list, spec.answers);
  fields.read_word("votes", spec.votes, {"each", "majority"});
  fields.read_word("model", spec.model, {"elo", "bt", "rao-kupper", "davidson"});
  fields.read_word("ties", spec.ties, {"half", "drop"});
  fields.read_word("rounds", spec.rounds, {"shuffle", "bootstrap"});
  fields.read_word("position", spec.position, {"none", "shared", "judge"});
  fields.read_word("interval", spec.interval, {"none", "bootstrap", "sandwich"});
  fields.read_word("cluster", spec.cluster, {"prompt", "battle"});
  QLORA_CHECK(!spec.files.empty() || !spec.preset.empty() || !spec.judge.empty(), usage,
              "{}: a tournament needs `files` or `preset`, or a `judge` of this file", node.where.text());
  QLORA_CHECK(spec.judge.empty() || (spec.files.empty() && spec.preset.empty() && spec.answers.empty()),
              usage, "{}: a tournament by a `judge` of this file takes no `files`, `preset` or `answers`",
              node.where.text());
  return spec;
}

EvalSpec read_eval(const YamlNode& node, const std::string& task) {
  EvalSpec spec = task == "mmlu"   ? read_mmlu_eval(node)
                  : task == "loss" ? read_loss_eval(node)
                                   : read_task_eval(node, find_task(task));
  spec.where = node.where;
  return spec;
}

}  // namespace

std::vector<EvalSpec> read_evals(const YamlNode& list) {
  std::vector<EvalSpec> specs;
  std::vector<std::string> known = {"mmlu", "loss"};
  for (const Task& task : tasks()) known.push_back(task.name);
  for (const YamlNode& node : items_of(list, "evals")) {
    const YamlNode* task = node.find("task");
    QLORA_CHECK(task != nullptr, usage, "{}: an evaluation needs `task`", node.where.text());
    read_value(*task, ValueKind::text, "task");  // refuses what is no word
    const std::string& name = task->text;
    QLORA_CHECK(std::find(known.begin(), known.end(), name) != known.end(), usage, "{}: {}",
                task->where.text(), unknown_name("task", name, known));
    specs.push_back(read_eval(node, name));
  }
  return specs;
}

std::vector<EvalSpec> own_evals(const RunConfig& config) {
  std::vector<EvalSpec> specs;
  if (config.flag("do_eval")) {
    EvalSpec& loss = specs.emplace_back();
    loss.task = "loss";
    loss.where.file = "do_eval";
  }
  if (config.flag("do_mmlu_eval")) {
    EvalSpec& mmlu = specs.emplace_back();
    mmlu.task = "mmlu";
    mmlu.where.file = "do_mmlu_eval";
    mmlu.data = config.text("mmlu_data");
    mmlu.mmlu.protocol = "qlora";
    mmlu.mmlu.split = config.text("mmlu_split");
    mmlu.mmlu.shots = config.text("mmlu_dataset") == "mmlu-zs" ? 0 : 5;
    mmlu.mmlu.samples = config.integer("max_mmlu_samples");
    mmlu.mmlu.max_length = config.integer("mmlu_source_max_len");
  }
  for (EvalSpec& spec : specs) spec.every = config.integer("eval_steps");
  return specs;
}

std::vector<TournamentSpec> read_tournaments(const YamlNode& list) {
  std::vector<TournamentSpec> specs;
  std::set<std::string> names;
  for (const YamlNode& node : items_of(list, "tournaments")) {
    specs.push_back(read_tournament(node));
    QLORA_CHECK(names.insert(specs.back().name).second, usage, "{}: two tournaments are called `{}`",
                node.where.text(), specs.back().name);
  }
  return specs;
}

}  // namespace qlora
