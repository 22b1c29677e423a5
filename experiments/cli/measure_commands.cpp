// qlora profile, qlora bench.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/child.h"
#include "experiments/bench/peers.h"
#include "experiments/bench/step_lab.h"
#include "experiments/cli/cli.h"
#include "experiments/profile.h"

namespace qlora {
namespace {

void add_profile(CLI::App& app, Invocation& in) {
  struct Arguments {
    std::string file;
    std::vector<std::string> sets;
    ProfileOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* profile = app.add_subcommand(
      "profile", "where the time of a training step goes, against the machine's peaks; stores nothing");
  profile->add_option("file", arguments->file, "a configuration, YAML: its first pack is trained")
      ->required();
  profile->add_option("--set", arguments->sets, "key=value: overrides the file; may be repeated");
  profile->add_option("--steps", arguments->options.steps, "optimizer steps to measure")
      ->check(CLI::Range(1, 100000));
  profile->add_option("--memory", arguments->options.memory, "as for `sweep run`: decides the pack");
  profile->add_flag("--shapes", arguments->options.by_shape, "one row for every size of weight");
  add_json_flag(*profile, in);
  add_compute_options(*profile, in);
  profile->footer(
      "Examples:\n  qlora profile experiments/configs/quickstart.yaml\n"
      "  qlora profile run.yaml --steps 5 --shapes --threads 1 --backend avx2");
  profile->callback([=, &in] {
    in.work = [=, &in] {
      ProfileOptions options = arguments->options;
      options.backend = in.backend;
      options.threads = in.threads;
      Profile result = profile_sweep(read_sweep(arguments->file, arguments->sets), options);
      fmt::print("{}\n", in.json ? profile_json(result) : profile_text(result));
      return 0;
    };
  });
}

int run_bench(const bench::Options& options, bool json) {
  bench::quiet_peers();
  const double begin = bench::now_seconds();
  int count = 0;
  bench::Bench bench(options, [&](const bench::Row& row) {
    fmt::print(stderr, "{:4} rows, {:6.1f} s  {}\n", ++count, bench::now_seconds() - begin,
               bench::one_line(row));
  });
  bench::run_all(bench, [&](const bench::FamilyTime& time) {
    fmt::print(stderr, "{:4} rows, {:6.1f} s  {}\n", count, bench::now_seconds() - begin,
               bench::one_line(time));
  });
  QLORA_CHECK(!bench.rows().empty(), usage, "--rows: no row begins with {}", fmt::join(options.rows, ", "));
  if (!options.outcomes.empty()) write_file(options.outcomes, bench.outcomes_json());
  fmt::print("{}\n", json ? bench::report(bench).dump(1) : bench::report_text(bench));
  return 0;
}

void add_bench(CLI::App& app, Invocation& in) {
  struct Arguments {
    bench::Options options;
    std::string step, examples;
    bool answer = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand(
      "bench", "this program against others and against the machine, as ratios within one run");
  bench::Options& o = arguments->options;
  verb->add_option("--rows", o.rows, "only rows whose names begin so; several after commas")->delimiter(',');
  verb->add_flag("--quick", o.quick, "fewer shapes and rounds: a look, not a measurement");
  verb->add_flag("--full", o.full,
                 "mmlu/val, mmlu/test: all questions, not a sample of each subject (hours)");
  verb->add_option("--model", o.model, "SmolLM2-135M's folder (default: where quickstart.sh puts it)");
  verb->add_option("--model-1b", o.model_1b, "a folder of TinyLlama's shape, for its decode row");
  verb->add_option("--peers", o.peers, "what other programs measured (scripts/bench.sh makes it), JSON");
  verb->add_option("--outcomes", o.outcomes,
                   "write what rows with a peer computed (losses, log-probabilities) there, JSON");
  verb->add_option("--export", arguments->examples, "write the examples that are trained on there, and end");
  verb->add_option("--step", arguments->step)->group("");  // in a measuring process
  verb->add_flag("--answer", arguments->answer)->group("");
  add_json_flag(*verb, in);
  add_compute_options(*verb, in);
  verb->footer(
      "Examples:\n  qlora bench --quick\n  qlora bench --rows nf4_gemm,small_row --threads 1 --json\n"
      "  scripts/bench.sh    # builds with the peers, runs all, writes results/bench");
  verb->callback([=, &in] {
    in.work = [=, &in] {
      bench::Options options = arguments->options;
      options.backend = in.backend;
      options.threads = in.threads;
      if (options.model.empty()) options.model = bench::default_model();
      if (!arguments->examples.empty()) {
        bench::export_examples(options, arguments->examples);
      } else if (!arguments->step.empty()) {
        bench::answer_parent(bench::to_json(bench::measure_step(options.model, in.backend, in.threads,
                                                                bench::step_from_text(arguments->step))));
      } else if (arguments->answer) {
        bench::Bench bench(options, [](const bench::Row& row) { bench::answer_parent(bench::to_json(row)); });
        bench::run_all(bench);
      } else {
        return run_bench(options, in.json);
      }
      return 0;
    };
  });
}

}  // namespace

void add_measure_commands(CLI::App& app, Invocation& in) {
  add_profile(app, in);
  add_bench(app, in);
}

}  // namespace qlora
