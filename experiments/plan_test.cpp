#include <unistd.h>

#include <catch2/catch.hpp>

#include "core/lora/lora.h"
#include "core/models/tiny_model.h"
#include "core/text/tiny_tokenizer.h"
#include "experiments/place.h"
#include "experiments/plan.h"
#include "experiments/scheduler.h"
#include "experiments/test_program.h"
#include "experiments/worker.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

Sweep sweep_of(const Workbench& bench, const std::string& more = "") {
  bench.write_sweep("s.yaml", more);
  Sweep sweep = read_sweep(bench.path() / "s.yaml",
                           {"model_name_or_path=" + (bench.path() / "model").string(),
                            "output_dir=" + (bench.path() / "out").string(),
                            "dataset=" + (bench.path() / "alpaca.json").string(), "lora_r=[2, 4, 8]"});
  return sweep;
}

std::vector<const PlannedRun*> pointers(const std::vector<PlannedRun>& runs) {
  std::vector<const PlannedRun*> out;
  for (const PlannedRun& run : runs) out.push_back(&run);
  return out;
}

}  // namespace

TEST_CASE("planned memory is what training takes at its peak") {
  Workbench bench;
  Sweep sweep = sweep_of(bench);
  Planner planner;
  std::vector<PlannedRun> runs = planner.plan(sweep);
  REQUIRE(runs.size() == 3);
  planner.fit(runs, size_t{1} << 40);
  CHECK(runs[0].memory < runs[2].memory);
  const MemoryPlan plan = planner.memory_of(pointers(runs));
  const size_t together = plan.bytes(), tensors = plan.lasting + plan.passing;
  CHECK(together > runs[2].memory);
  CHECK(together < runs[0].memory + runs[1].memory + runs[2].memory);

  // The real thing, on a real backend, never takes more; and not much less, since the worst batch is among
  // its batches.
  Job job;
  job.model = bench.path() / "model";
  job.base_name = "model";
  for (const PlannedRun& run : runs) {
    RunJob& r = job.runs.emplace_back();
    r.name = run.name;
    r.key = run.key;
    r.content = run.content;
    r.config = run.config.with("max_steps", int64_t{12}).with("save_steps", int64_t{100});
    r.folder = bench.path() / run.name;
    r.adapter = r.folder / "adapter";
    r.train = true;
    std::filesystem::create_directories(r.folder);
  }
  size_t peak = 0, ended = 0;
  struct Peak : MessageHandler {
    size_t *peak, *ended;
    void on(const StartedMessage&) override {}
    void on(const StepMessage& m) override { *peak = std::max(*peak, m.memory); }
    void on(const EndedMessage&) override { ++*ended; }
    void on(const ScoredMessage&) override {}
    void on(const AnswersMessage&) override {}
    void on(const GeneratedMessage&) override {}
    void on(const PhaseMessage&) override {}
    void on(const NoteMessage&) override {}
    void on(const FailedMessage&) override {}
  } handler;
  handler.peak = &peak;
  handler.ended = &ended;
  CHECK(do_job(
      job, [&](const std::string& line) { dispatch(line, handler); }, [] { return false; }));
  CHECK(ended == 3);
  CHECK(peak <= tensors);
  CHECK(static_cast<double>(peak) > 0.7 * static_cast<double>(tensors));

  auto ignore = [](const std::string&) {};
  auto never = [] { return false; };
  Job changed = job;
  changed.runs[2].content.data = std::string(64, '0');
  CHECK_THROWS_WITH(do_job(changed, ignore, never), Contains("alpaca.json has changed since"));
  changed = job;
  changed.runs[0].content.model = std::string(64, '0');
  CHECK_THROWS_WITH(do_job(changed, ignore, never), Contains("model has changed since"));
}

TEST_CASE("packs are as large as memory allows and keep the order") {
  Workbench bench;
  Sweep sweep = sweep_of(bench);
  Planner planner;
  std::vector<PlannedRun> runs = planner.plan(sweep);
  planner.fit(runs, size_t{1} << 40);
  std::vector<const PlannedRun*> all = pointers(runs);
  CHECK(planner.pack(all, size_t{1} << 40).size() == 1);
  size_t two = planner.memory_of({all[0], all[1]}).bytes();
  auto packs = planner.pack(all, std::max(two, runs[2].memory));
  REQUIRE(packs.size() == 2);
  CHECK(packs[0].runs == std::vector<const PlannedRun*>{all[0], all[1]});
  CHECK(packs[1].runs == std::vector<const PlannedRun*>{all[2]});
  CHECK((packs[0].checkpointing == Checkpointing::block && packs[0].reason.empty()));
  CHECK_THROWS_WITH(planner.pack(all, runs[2].memory - 1), Contains("--memory"));
  // Another quantization is another base.
  runs[1].pack += "x";
  CHECK(planner.pack(pointers(runs), size_t{1} << 40).size() == 2);
}

TEST_CASE("every pack chooses its own checkpointing and says why") {
  Workbench bench;
  Planner planner;
  std::vector<PlannedRun> runs = planner.plan(sweep_of(bench, "gradient_checkpointing: auto\n"));
  const std::vector<Digest> keys = {runs[0].key, runs[1].key, runs[2].key};
  const std::vector<const PlannedRun*> all = pointers(runs);
  auto rows = [&](int64_t each) {
    for (PlannedRun& run : runs) run.longest = {each};
  };
  auto needs = [&](size_t first, size_t count, Checkpointing mode) {
    return planner
        .memory_of({all.begin() + static_cast<std::ptrdiff_t>(first),
                    all.begin() + static_cast<std::ptrdiff_t>(first + count)},
                   mode)
        .bytes();
  };
  // There is room: nothing is computed again.
  rows(400);
  std::vector<PlannedPack> packs = planner.pack(all, size_t{1} << 40);
  REQUIRE(packs.size() == 1);
  CHECK(packs[0].checkpointing == Checkpointing::none);
  CHECK_THAT(describe_choices(packs).at(0),
             Contains("auto: none for 3 runs together (none fits 3 of 3; 1024.0 GiB"));
  // Long examples: sharing a pass over the base saves less than computing blocks again costs.
  size_t budget = needs(0, 3, Checkpointing::block);
  REQUIRE(needs(0, 3, Checkpointing::none) > budget);
  REQUIRE(needs(2, 1, Checkpointing::none) <= budget);
  packs = planner.pack(all, budget);
  REQUIRE(packs.size() > 1);
  for (const PlannedPack& pack : packs) CHECK(pack.checkpointing != Checkpointing::block);
  CHECK_THAT(packs[0].reason, Contains("none fits ") && Contains("block fits 3 of 3"));
  // Short ones: together, by blocks. The last pack is a small one, and keeps everything.
  rows(8);
  budget = std::max(needs(0, 2, Checkpointing::block), needs(2, 1, Checkpointing::none));
  REQUIRE(needs(0, 2, Checkpointing::selective) > budget);
  packs = planner.pack(all, budget);
  REQUIRE(packs.size() == 2);
  CHECK((packs[0].checkpointing == Checkpointing::block && packs[0].runs.size() == 2));
  CHECK((packs[1].checkpointing == Checkpointing::none && packs[1].runs.size() == 1));
  CHECK(describe_choices(packs).size() == 2);
  // Nothing fits: what the leanest mode needs is said.
  CHECK_THROWS_WITH(planner.pack(all, 1), Contains("needs") && Contains("--memory"));
  // Keys know nothing of it.
  for (size_t i = 0; i < runs.size(); ++i)
    CHECK(run_key(runs[i].config.with("gradient_checkpointing", std::string("block")), runs[i].content) ==
          keys[i]);
}

TEST_CASE("a pack on a GPU goes through cuBLAS in whatever mode fits, before it goes by our own tiles") {
  Workbench bench;
  Planner planner(PlannedDevice{CountedKernels::cuda});
  std::vector<PlannedRun> runs =
      planner.plan(sweep_of(bench, "gradient_checkpointing: auto\ncompute_dtype: bf16\n"));
  for (PlannedRun& run : runs) {
    run.config = run.config.with("per_device_train_batch_size", int64_t{200});
    run.longest.assign(200, 400);
  }
  const std::vector<const PlannedRun*> one = {&runs[0]};
  const auto needs = [&](Checkpointing mode, bool blas, size_t kept) {
    return planner.memory_of(one, mode, {.blas = blas, .kept_bytes = kept}).bytes();
  };
  const size_t block = needs(Checkpointing::block, true, 0);
  REQUIRE(needs(Checkpointing::selective, true, 0) > block);
  const size_t decoded = planner.memory_of(one, Checkpointing::block).decoded;
  CHECK(needs(Checkpointing::block, true, decoded) > block);
  struct Choice {
    size_t budget;
    bool blas;
    size_t kept;
  };
  // Through cuBLAS by blocks, with their decoded weights and without, and with a byte too little for that.
  for (const Choice& c : {Choice{needs(Checkpointing::block, true, decoded), true, decoded},
                          {block, true, 0},
                          {block - 1, false, 0}}) {
    INFO(c.budget);
    const PlannedPack pack = planner.pack(one, c.budget).at(0), chosen = planner.choose(one, c.budget);
    for (const PlannedPack& found : {pack, chosen}) {
      CHECK((found.memory.options.blas == c.blas && found.memory.options.kept_bytes == c.kept));
      CHECK(found.memory.bytes() <= c.budget);
      if (c.blas) CHECK(found.checkpointing == Checkpointing::block);
    }
    CHECK((pack.reason.find("by our own tiles") == std::string::npos) == c.blas);
  }
  // With all the room there is nothing to compute again, and nothing is decoded twice.
  CHECK(planner.pack(one, size_t{1} << 40)[0].memory.options.kept_bytes == 0);
}

TEST_CASE("inputs of blocks go to the host where a GPU has no room for them, and on the processor nowhere") {
  Workbench bench;
  write_tiny_model(bench.path() / "model",
                   {.vocab = TinyTokenizer::kVocabSize + 4, .layers = 12, .max_positions = 640});
  Planner planner(PlannedDevice{CountedKernels::cuda}), on_processor;
  const Sweep automatic = sweep_of(bench, "gradient_checkpointing: auto\n"),
              asked = sweep_of(bench, "gradient_checkpointing: offload\n");
  std::vector<PlannedRun> runs = planner.plan(automatic);
  for (PlannedRun& run : runs) {
    run.config = run.config.with("per_device_train_batch_size", int64_t{240});
    run.longest.assign(240, 600);
  }
  const MemoryPlan block = planner.memory_of({&runs[0]}, Checkpointing::block),
                   offload = planner.memory_of({&runs[0]}, Checkpointing::offload);
  CHECK((block.offloaded == 0 && offload.offloaded > 0 && offload.paged == 0));
  REQUIRE(offload.bytes() < block.bytes());
  const PlannedPack pack = planner.pack({&runs[0]}, offload.bytes()).at(0);
  CHECK(pack.checkpointing == Checkpointing::offload);
  CHECK_THAT(pack.reason, Contains("block needs ") && Contains("offload fits 1 of 1"));
  const size_t least = planner.memory_of({&runs[0]}, Checkpointing::offload, {.blas = false}).bytes();
  CHECK(planner.pack({&runs[0]}, least).at(0).checkpointing == Checkpointing::offload);
  // Where the host has no room either, the run is refused, unless the GPU has it. `auto` has tried the rest.
  const size_t host = offload.pinned() - (size_t{1} << 20);
  Planner small(PlannedDevice{.kernels = CountedKernels::cuda, .host = host});
  const std::string short_of = fmt::format("needs {} of the host's memory, {} are there",
                                           format_bytes(offload.pinned()), format_bytes(host));
  CHECK_THROWS_WITH(small.pack({&runs[0]}, least),
                    Contains(short_of + "; gradient_checkpointing: offload has"));
  CHECK_THROWS_WITH(small.pack({&runs[0]}, 1), Contains(" and ") && Contains("may be used (--memory)"));
  CHECK(small.pack({&runs[0]}, block.bytes()).at(0).checkpointing == Checkpointing::block);
  PlannedRun told = runs[0];
  told.config = told.config.with("gradient_checkpointing", std::string("offload"));
  CHECK_THROWS_WITH(small.pack({&told}, least), Contains(short_of + "; gradient_checkpointing: block"));
  // Own tiles instead of inputs on the host: the reason is the host's memory, not the GPU's.
  const size_t by_tiles = planner.memory_of({&runs[0]}, Checkpointing::block, {.blas = false}).bytes();
  REQUIRE(offload.bytes() <= by_tiles);
  REQUIRE(by_tiles < block.bytes());
  const PlannedPack tiles = small.pack({&runs[0]}, by_tiles).at(0);
  CHECK((tiles.checkpointing == Checkpointing::block && !tiles.memory.options.blas));
  CHECK_THAT(tiles.reason, Contains("offload " + short_of + ", "));

  runs = on_processor.plan(asked);
  const std::vector<PlannedPack> packs = on_processor.pack(pointers(runs), size_t{1} << 40);
  CHECK(packs[0].checkpointing == Checkpointing::block);
  CHECK(describe_choices(packs).at(0) ==
        "gradient_checkpointing offload: block for 3 runs together (memory of the host is where this "
        "computes)");
  CHECK(on_processor.memory_of({&runs[0]}).offloaded == 0);
}

TEST_CASE("paged states that the host has no room for are refused, and nothing else is blamed") {
  Workbench bench;
  for (const char* mode : {"block", "offload", "auto"}) {
    const Sweep sweep =
        sweep_of(bench, fmt::format("optim: paged_adamw_32bit\ngradient_checkpointing: {}\n", mode));
    Planner large(PlannedDevice{CountedKernels::cuda});
    const std::vector<PlannedRun> runs = large.plan(sweep);
    const size_t paged = large.choose({&runs[0]}, size_t{1} << 40).memory.paged;
    REQUIRE(paged > 0);
    Planner small(PlannedDevice{.kernels = CountedKernels::cuda, .host = paged - 1});
    CHECK_THROWS_WITH(small.pack({&runs[0]}, size_t{1} << 40),
                      Contains("of the host's memory") && Contains("an optimizer that is not paged") &&
                          !Contains("gradient_checkpointing") && !Contains("--memory"));
    CHECK(small.choose({&runs[0]}, size_t{1} << 40).memory.options.blas);
  }
}

TEST_CASE("a GPU is planned with the memory that its host has") {
  const size_t host = place_of("cuda-emulated", "2G").device.host;
  CHECK(host >= size_t{1} << 20);
  CHECK(host <= static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  CHECK(place_of("cuda-emulated", "2G").budget == size_t{2} << 30);
}

TEST_CASE("planned memory covers the evaluations of a run") {
  Workbench bench;
  auto passing = [&](const std::string& evals) {
    Sweep sweep = sweep_of(bench, evals);
    for (SweepRun& run : sweep.runs)
      run.config = run.config.with("per_device_train_batch_size", int64_t{1})
                       .with("per_device_eval_batch_size", int64_t{8});
    Planner planner;
    WorkPlan plan = plan_work(planner, sweep, nullptr, size_t{1} << 40);
    return planner.memory_of({&plan.runs[0]}).passing;
  };
  const size_t training = passing("");
  const size_t losses = passing("evals: [{task: loss, at: end}]\n");
  CHECK(losses > training);
  CHECK(passing("do_eval: true\neval_steps: 2\n") == losses);

  // Passes over questions, some of which share a passage, as a worker makes them: never more than planned,
  // and not much less.
  for (const char* subject : {"anatomy", "astronomy"}) {
    std::string rows;
    for (int i = 0; i < 200; ++i) {
      const std::string passage = i % 3 == 0 ? "" : fmt::format("Passage {} says so at length. ", i / 12);
      rows += fmt::format("{}What is {}?,{},{},{},{},{}\n", passage, i * 7919, i, i + 1, i + 2, i + 3,
                          "ABCD"[i % 4]);
    }
    bench.write(fmt::format("mmlu/test/{}_test.csv", subject), rows);
  }
  const std::string tree = (bench.path() / "mmlu").string();
  for (int64_t shots : {0, 5}) {
    const std::string evals =
        fmt::format("evals: [{{task: mmlu, data: {}, shots: {}, at: end}}]\n", tree, shots);
    const auto planned = static_cast<double>(passing(evals));
    if (shots == 5)  // the same questions asked for as in qlora.py
      CHECK(passing(fmt::format("do_mmlu_eval: true\nmmlu_data: {}\nmmlu_split: test\n", tree)) ==
            passing(fmt::format("evals: [{{task: mmlu, data: {}, protocol: qlora, shots: 5, at: end}}]\n",
                                tree)));
    const RunConfig config = sweep_of(bench, evals).runs[0].config;
    auto backend = make_backend("auto");
    Memory memory(*backend);
    memory.reserve(static_cast<size_t>(planned));
    const LoadOptions load = load_options(config);
    auto model = load_model(bench.path() / "model", memory, load);
    auto adapter = make_adapter(*model, lora_config(config), memory, load.type, 1);
    auto lm = make_model_lm(model, memory, {adapter.get()}, {.type = load.type});
    MmluOptions options;
    options.shots = shots;
    std::vector<SubjectIndex> run = {0};
    run_mmlu(*lm, *load_tokenizer(bench.path() / "model"), read_mmlu(tree, options), options, run);
    const auto taken = static_cast<double>(memory.held_passing());
    INFO(shots << " shots: planned " << planned << " bytes, taken " << taken);
    CHECK(taken <= planned);
    CHECK(taken > 0.4 * planned);
  }
}

TEST_CASE("answers are planned with their drafts and made as their run says") {
  Workbench bench;
  constexpr int64_t kVocab = 20'000;  // so that logits take the most
  write_tiny_model(bench.path() / "model", {.vocab = kVocab, .max_positions = 640});
  bench.write_questions();
  const std::string questions = (bench.path() / "questions.jsonl").string();
  Sweep sweep = sweep_of(bench, "prompt_lookup_num_tokens: 7\ngenerate:\n  - {questions: " + questions +
                                    ", template: oasst1, limit: 1, max_new_tokens: 30}\n");
  Planner planner;
  WorkPlan plan = plan_work(planner, sweep, nullptr, size_t{1} << 40);
  REQUIRE(plan.answers.answers.size() == 3);
  CHECK(plan.answers.answers[0].settings.drafts == 7);
  PlannedRun answering = plan.runs[0];
  answering.longest.clear();  // trained already
  answering.longest_eval.clear();
  CHECK(answering.answers == 1);
  constexpr size_t kLogits = 16 * kVocab * sizeof(float);
  CHECK(planner.memory_of({&answering}).passing > kLogits);
  const JudgeSetup setup{
      .judge = "model:" + (bench.path() / "model").string(), .max_tokens = 30, .chat_template = "oasst1"};
  CHECK(planner.judge_need(setup, "x", 0).room > kLogits);
}

TEST_CASE("runs that differ in nothing that changes numbers are refused") {
  Workbench bench;
  Sweep sweep = sweep_of(bench);
  sweep.runs[1] = sweep.runs[0];
  sweep.runs[1].name = "twin";
  CHECK_THROWS_WITH(Planner().plan(sweep), Contains("`twin` are the same run"));
}

TEST_CASE("amounts of memory are read as people write them") {
  CHECK(parse_memory("800M") == size_t{800} << 20);
  CHECK(parse_memory("12GiB") == size_t{12} << 30);
  CHECK(parse_memory("1.5G") == size_t{3} << 29);
  CHECK(parse_memory("4096") == 4096);
  CHECK(parse_memory("50%") <= available_memory());
  CHECK(parse_memory("50%") > 0);
  for (const char* bad : {"", "lots", "-1G", "5X", "G", "1 2"}) CHECK_THROWS_AS(parse_memory(bad), Error);
  CHECK(format_bytes(size_t{812} << 20) == "812 MiB");
  CHECK(format_bytes(size_t{18} << 30) == "18.0 GiB");
}

TEST_CASE("checkpoints are found by number and old ones removed") {
  TemporaryFolder folder;
  for (const char* name :
       {"checkpoint-2", "checkpoint-10", "checkpoint-9", "checkpoint-11.tmp", "checkpoint-x"})
    std::filesystem::create_directories(folder.path() / name);
  CHECK(latest_checkpoint(folder.path()).filename() == "checkpoint-10");
  prune_checkpoints(folder.path(), 2);
  CHECK_FALSE(std::filesystem::exists(folder.path() / "checkpoint-2"));
  CHECK(std::filesystem::exists(folder.path() / "checkpoint-9"));
  CHECK(latest_checkpoint(folder.path() / "none").empty());
}

TEST_CASE("a job and its messages survive the way to the worker and back") {
  Workbench bench;
  Sweep sweep = sweep_of(bench);
  Job job;
  job.model = "m";
  job.base_key = sha256("base");
  job.threads = 3;
  job.device = {.blas = false, .kept_bytes = 34567};
  job.room = 12345;
  job.lasting = 23456;
  job.offload = 34567;
  RunJob& run = job.runs.emplace_back();
  run.name = "r";
  run.key = sha256("run");
  run.config = sweep.runs[0].config;
  run.train = true;
  run.evals.push_back({sha256("e"), "mmlu", 6, "{}", "tree", "ff", {}});
  run.evals[0].mmlu.subjects = {"anatomy"};
  run.evals[0].answers = {{sha256("asked"), std::string("\0\x7f\xff", 3)}, {sha256("too"), ""}};
  run.scored = {{2, {{"eval_loss", 2.5}}}, {4, {{"mmlu_eval_accuracy", 0.25}, {"mmlu_loss", 1.0 / 3}}}};
  job.base_evals = run.evals;
  AnswerJob& answers = run.answers.emplace_back();
  answers.questions = "questions.jsonl";
  answers.settings = {.chat_template = "oasst1", .decode_numerics = "exact", .drafts = 5};
  CHECK(job_from_text(to_text(job), "job").runs[0].evals[0].answers[0].answer ==
        run.evals[0].answers[0].answer);
  CHECK(to_text(job_from_text(to_text(job), "job")) == to_text(job));
  CHECK_THROWS_AS(job_from_text("{}", "job"), Error);
  CHECK(job_from_text(to_text(job), "job").runs[0].config == run.config);
  CHECK(job_from_text(to_text(job), "job").runs[0].scored == run.scored);
  CHECK(job_from_text(to_text(job), "job").runs[0].answers[0].settings.drafts == 5);
}
