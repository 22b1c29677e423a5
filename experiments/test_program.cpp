#include "experiments/test_program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/base/file.h"
#include "core/models/tiny_model.h"
#include "core/text/tiny_tokenizer.h"

namespace qlora::test {

Program::Program(const Path& folder, const std::vector<std::string>& arguments) : folder_(folder) {
  std::vector<std::string> words = arguments;
  words.insert(words.begin(), QLORA_PROGRAM);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::string out = (folder / "stdout").string(), err = (folder / "stderr").string();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(::open(out.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644), 1);
    ::dup2(::open(err.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644), 2);
    if (::chdir(folder.c_str()) != 0) ::_exit(126);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
}

pid_t Program::worker() const {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream stat(entry.path() / "stat");
    std::string pid, name, state;
    pid_t parent = 0;
    if (stat >> pid >> name >> state >> parent && parent == pid_) return static_cast<pid_t>(std::stol(pid));
  }
  return 0;
}

ProgramEnd Program::wait() {
  int status = 0;
  ::waitpid(pid_, &status, 0);
  ProgramEnd end;
  end.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  end.out = read_file(folder_ / "stdout");
  end.err = read_file(folder_ / "stderr");
  return end;
}

bool appears(const Path& path) {
  for (int i = 0; i < 30'000; ++i) {
    if (std::filesystem::exists(path)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

Workbench::Workbench() {
  ::setenv("QLORA_HOME", (path() / "home").c_str(), 1);
  ::unsetenv("QLORA_DB");
  TinyConfig config;
  config.vocab = TinyTokenizer::kVocabSize + 4;
  config.max_positions = 640;
  std::filesystem::create_directories(path() / "model");
  write_tiny_model(path() / "model", config);
  write_tiny_tokenizer(path() / "model");
  add_answer_letters();
  write_data();
  write_mmlu();
}

void Workbench::write(const std::string& name, const std::string& text) const {
  std::filesystem::create_directories((path() / name).parent_path());
  write_file(path() / name, text);
}

ProgramEnd Workbench::run(const std::vector<std::string>& arguments) const {
  return Program(path(), arguments).wait();
}

void Workbench::write_sweep(const std::string& name, const std::string& more) const {
  write(name,
        "name: test\nmodel_name_or_path: model\noutput_dir: out\nlora_r: 4\nlora_dropout: 0.1\nmax_steps: 6\n"
        "per_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nlearning_rate: "
        "1e-3\neval_dataset_size: 8\n"
        "source_max_len: 160\ntarget_max_len: 48\noverlong: truncate\nsave_steps: 2\nlogging_steps: 1\n"
        "parameters: {dataset: [alpaca.json, dialogues.jsonl]}\n" +
            more);
}

void Workbench::write_questions(const std::string& name) const {
  std::string questions;
  for (int i = 1; i <= 3; ++i)
    questions +=
        fmt::format("{{\"question_id\": {0}, \"text\": \"What is {0}?\", \"category\": \"general\"}}\n", i);
  write(name, questions);
  write("short.jsonl",
        "{\"prompt_id\": 1, \"system_prompt\": \"\", \"prompt_template\": "
        "\"{question}{answer_1}{answer_2}\", \"category\": \"general\"}\n");
}

void Workbench::add_answer_letters() const {
  Json tokenizer = parse_json(read_file(path() / "model" / "tokenizer.json"), "tokenizer.json");
  Json& model = tokenizer["model"];
  for (int64_t i = 0; i < 4; ++i) {
    const std::string blank = "\u0120",
                      letter(1, static_cast<char>('A' + i));  // the byte level's name of a blank
    model["vocab"][blank + letter] = TinyTokenizer::kVocabSize + i;
    if (model["merges"][0].is_string()) {
      model["merges"].push_back(blank + " " + letter);
    } else {
      model["merges"].push_back({blank, letter});
    }
  }
  write("model/tokenizer.json", tokenizer.dump());
}

void Workbench::write_data() const {
  std::string alpaca = "[", dialogues;
  for (int i = 0; i < 40; ++i) {
    std::string words(static_cast<size_t>(3 + i % 7), static_cast<char>('a' + i % 26));
    alpaca += fmt::format(R"({}{{"instruction": "Spell {}", "input": "", "output": "It is {} {}"}})",
                          i > 0 ? "," : "", i, words, i * i);
    dialogues +=
        fmt::format(R"({{"text": "### Human: What is {}?### Assistant: {} it is."}})", i, words) + "\n";
  }
  write("alpaca.json", alpaca + "]");
  write("dialogues.jsonl", dialogues);
}

void Workbench::write_mmlu() const {
  for (const char* split : {"dev", "test"}) {
    std::filesystem::create_directories(path() / "mmlu" / split);
    for (const char* subject : {"anatomy", "astronomy"}) {
      std::string rows;
      for (int i = 0; i < 6; ++i)
        rows += fmt::format("What is {}?,{},{},{},{},{}\n", i, i, i + 1, i + 2, i + 3, "ABCD"[i % 4]);
      write(fmt::format("mmlu/{}/{}_{}.csv", split, subject, split), rows);
    }
  }
}

std::vector<Json> records(const std::string& out) {
  std::vector<Json> all;
  std::istringstream lines(out);
  for (std::string line; std::getline(lines, line);) all.push_back(parse_json(line, "stdout"));
  return all;
}

Json query(const Workbench& bench, const std::string& sql, const std::string& db) {
  const ProgramEnd end = bench.run({"results", "query", sql, "--json", "--db", db});
  INFO(end.err);
  REQUIRE(end.code == 0);
  return parse_json(end.out, "query");
}

}  // namespace qlora::test
