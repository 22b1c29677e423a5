// qlora eval datatypes: the QLoRA paper's Table 2 of models and texts at hand.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/names.h"
#include "eval/data_types.h"
#include "eval/texts/bundled_text.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/loaded_model.h"
#include "experiments/eval_rows.h"
#include "experiments/terminal.h"
#include "results/query.h"
#include "results/store.h"

namespace qlora {
namespace {

struct DataTypeArguments {
  std::vector<std::string> models, data, types;
  int64_t length = 512, windows = 0, batch = 2;
  bool no_store = false;
};

std::string model_name(const std::string& folder) {
  const Path path(folder);
  return (path.filename().empty() ? path.parent_path() : path).filename().string();
}

std::vector<const DataTypeForm*> chosen_forms(const DataTypeArguments& arguments) {
  std::vector<std::string> known;
  std::vector<const DataTypeForm*> forms;
  for (const DataTypeForm& form : data_type_forms()) {
    known.emplace_back(form.name);
    if (arguments.types.empty() ||
        std::find(arguments.types.begin(), arguments.types.end(), form.name) != arguments.types.end())
      forms.push_back(&form);
  }
  for (const std::string& type : arguments.types)
    QLORA_CHECK(std::find(known.begin(), known.end(), type) != known.end(), usage, "--types: {}",
                unknown_name("data type", type, known));
  return forms;
}

// The table's cells: mean losses by form and model. What the store has is not computed again.
class DataTypeTable {
 public:
  DataTypeTable(const Invocation& in, const DataTypeArguments& arguments)
      : in_(in),
        arguments_(arguments),
        forms_(chosen_forms(arguments)),
        progress_(stderr, in.json, kPlainLineSeconds) {
    if (!arguments.no_store) store_ = Store::open(in.db);
    files_.assign(arguments.data.begin(), arguments.data.end());
  }

  int run() {
    if (files_.empty()) fmt::print(stderr, "qlora: {}\n", about_bundled());
    perplexities_.resize(forms_.size());
    for (const std::string& model : arguments_.models) score(model);
    progress_.clear();
    in_.json ? print_json() : print_table();
    return 0;
  }

 private:
  struct Cell {
    double perplexity = 0;
    int64_t tokens = 0;
  };

  void score(const std::string& model) {
    const auto tokenizer = load_tokenizer(model);
    const TextWindows text = windows_of(*tokenizer);
    const ContentHashes content{model_content_hash(model), tokenizer->content_hash(), ""};
    for (size_t f = 0; f < forms_.size(); ++f) {
      const DataTypeForm& form = *forms_[f];
      ModelArguments of;
      of.model = model;
      of.quant = form.quant.format == Format::dense
                     ? "none"
                     : std::string(name_of(form.quant.format)) + (form.quant.double_quant ? "+dq" : "");
      of.compute_dtype = name_of(form.operands);
      of.no_cache = true;  // a base that is read once is not worth keeping
      const RunConfig config = base_config(of, in_.backend);
      EvalJob job;
      job.task = "datatypes";
      job.protocol =
          canonical({{"name", "windows"}, {"length", arguments_.length}, {"windows", arguments_.windows}});
      job.data_hash = text.content_hash;
      const SubjectModel subject =
          base_subject(base_key(config, content), model_name(model), model, quant_label(config));
      job.key = evaluation_key(subject.key, 0, job.task, job.protocol, job.data_hash);
      perplexities_[f].push_back(store_ && store_->has_evaluation(job.key)
                                     ? stored(job.key)
                                     : compute(config, form, text, job, subject));
    }
  }

  TextWindows windows_of(const Tokenizer& tokenizer) const {
    return files_.empty()
               ? text_windows(bundled_text().text, tokenizer, arguments_.length, arguments_.windows)
               : text_windows(files_, tokenizer, arguments_.length, arguments_.windows);
  }

  static std::string about_bundled() {
    const BundledText bundled = bundled_text();
    return fmt::format(
        "without --data the built-in text {} is scored, {} bytes of plain English: too short to tell near "
        "data "
        "types apart; --data FILE takes another",
        bundled.name, bundled.text.size());
  }

  Cell compute(const RunConfig& config, const DataTypeForm& form, const TextWindows& text, const EvalJob& job,
               const SubjectModel& subject) {
    const std::string started = now_utc();
    const auto begin = std::chrono::steady_clock::now();
    const std::string what = fmt::format("{} {}", subject.name, form.name);
    progress_.phase(what + ": loading", 0, 0);
    LoadedModel loaded(config, in_.backend, in_.threads);
    QLORA_CHECK(arguments_.length <= loaded.model()->config().max_positions, usage,
                "--length {}: {} takes at most {} tokens", arguments_.length, subject.name,
                loaded.model()->config().max_positions);
    EvalLoss loss;
    const auto all = static_cast<int64_t>(text.windows.size());
    for (int64_t at = 0; at < all; at += arguments_.batch) {
      progress_.phase(what, at, all);
      const auto some =
          std::span(text.windows)
              .subspan(static_cast<size_t>(at), static_cast<size_t>(std::min(arguments_.batch, all - at)));
      const EvalLoss part =
          evaluate_loss(*loaded.model(), loaded.memory(), loaded.type(), nullptr, some, arguments_.batch);
      loss.loss_sum += part.loss_sum;
      loss.labels += part.labels;
    }
    progress_.phase(what, all, all);
    if (store_) {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      EvalRow row = loss_row(job, subject, loss.mean(), loss.labels, started, seconds);
      row.task.name = job.task;
      row.task.version = "windows-" + job.data_hash.substr(0, 12);
      store_->write_evaluation(row);
    }
    return {std::exp(loss.mean()), loss.labels};
  }

  Cell stored(const Digest& key) const {
    const Table found = run_query(
        in_.db, fmt::format("SELECT r.value, r.n FROM evaluation e JOIN eval_result r USING(evaluation_id) "
                            "WHERE e.evaluation_key = x'{}'",
                            hex(key)));
    return {std::exp(std::get<double>(found.rows.at(0).at(0))), std::get<int64_t>(found.rows[0].at(1))};
  }

  double mean(size_t form) const {
    double sum = 0;
    for (const Cell& cell : perplexities_[form]) sum += cell.perplexity;
    return sum / static_cast<double>(perplexities_[form].size());
  }

  void print_table() const {
    Table table;
    table.columns = {"type", "bits"};
    for (const std::string& model : arguments_.models) table.columns.push_back(model_name(model));
    const bool several = arguments_.models.size() > 1;
    if (several) table.columns.push_back("mean");
    table.columns.push_back("paper");
    for (size_t f = 0; f < forms_.size(); ++f) {
      std::vector<Value>& row = table.rows.emplace_back();
      row.emplace_back(std::string(forms_[f]->name));
      row.emplace_back(forms_[f]->bits);
      for (const Cell& cell : perplexities_[f]) row.emplace_back(cell.perplexity);
      if (several) row.emplace_back(mean(f));
      row.emplace_back();
      if (forms_[f]->published) row.back() = *forms_[f]->published;
    }
    fmt::print(
        "{}perplexity over {}, in windows of {}; paper: mean of OPT, BLOOM, LLaMA and Pythia, 125M to "
        "13B, on Pile Common Crawl\n",
        render_text(table), tokens_text(), arguments_.length);
  }

  // One count, or, where tokenizers read the texts differently, one a model.
  std::string tokens_text() const {
    const std::vector<Cell>& cells = perplexities_[0];
    if (std::all_of(cells.begin(), cells.end(),
                    [&](const Cell& cell) { return cell.tokens == cells[0].tokens; }))
      return fmt::format("{} tokens", cells.at(0).tokens);
    std::vector<std::string> counts;
    for (size_t m = 0; m < cells.size(); ++m)
      counts.push_back(fmt::format("{} ({})", cells[m].tokens, model_name(arguments_.models[m])));
    return fmt::format("{} tokens", fmt::join(counts, ", "));
  }

  void print_json() const {
    Json rows = Json::array();
    for (size_t f = 0; f < forms_.size(); ++f) {
      Json models = Json::array();
      for (size_t m = 0; m < arguments_.models.size(); ++m)
        models.push_back({{"model", arguments_.models[m]},
                          {"perplexity", perplexities_[f][m].perplexity},
                          {"tokens", perplexities_[f][m].tokens}});
      rows.push_back({{"type", forms_[f]->name},
                      {"bits", forms_[f]->bits},
                      {"models", models},
                      {"mean", mean(f)},
                      {"paper", forms_[f]->published ? Json(*forms_[f]->published) : Json(nullptr)}});
    }
    Json json = {{"length", arguments_.length},
                 {"windows", arguments_.windows},
                 {"data", arguments_.data},
                 {"rows", rows}};
    if (files_.empty()) {
      json["data"].push_back(fmt::format("built-in:{}", bundled_text().name));
      json["note"] = about_bundled();
    }
    fmt::print("{}\n", json.dump(1));
  }

  const Invocation& in_;
  const DataTypeArguments& arguments_;
  std::vector<const DataTypeForm*> forms_;
  std::vector<Path> files_;
  Progress progress_;
  std::optional<Store> store_;
  std::vector<std::vector<Cell>> perplexities_;  // by form, by model
};

}  // namespace

void add_data_type_command(CLI::App& eval, Invocation& in) {
  auto arguments = std::make_shared<DataTypeArguments>();
  CLI::App* verb =
      eval.add_subcommand("datatypes", "perplexity by the data type of the weights: Table 2 of QLoRA");
  verb->add_option("--model", arguments->models, "a base model's folder; several: their mean is given too")
      ->required();
  verb->add_option("--data", arguments->data,
                   "texts: .txt, or rows with `text`; none: a short one that is built in");
  verb->add_option("--types", arguments->types, "only these")->delimiter(',');
  verb->add_option("--length", arguments->length, "tokens of a window")->check(CLI::Range(2, 1 << 20));
  verb->add_option("--windows", arguments->windows, "the first so many windows; 0: all")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--batch", arguments->batch, "windows of one pass; no number depends on it")
      ->check(CLI::PositiveNumber);
  verb->add_flag("--no-store", arguments->no_store, "do not write the results into --db");
  add_db_option(*verb, in);
  add_compute_options(*verb, in);
  add_json_flag(*verb, in);
  verb->footer(
      "Examples:\n  qlora eval datatypes --model DIR\n"
      "  qlora eval datatypes --model DIR --data wiki.txt --windows 16\n"
      "  qlora eval datatypes --model DIR125M --model DIR1B --data a.txt b.jsonl --json");
  verb->callback([=, &in] { in.work = [=, &in] { return DataTypeTable(in, *arguments).run(); }; });
}

}  // namespace qlora
