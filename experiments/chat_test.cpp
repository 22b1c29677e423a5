#include "experiments/chat.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <numeric>
#include <optional>

#include "core/models/tiny_model.h"
#include "core/text/stop_strings.h"
#include "core/text/tiny_tokenizer.h"
#include "experiments/model_judge.h"
#include "experiments/test_program.h"
#include "kernels/backend.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Contains;

namespace {

struct Fixture {
  explicit Fixture(int64_t positions) : backend(make_backend("auto")), memory(*backend) {
    write_tiny_tokenizer(folder.path());
    tokenizer = load_tokenizer(folder.path());
    model = load_tiny_model(memory, {.vocab = TinyTokenizer::kVocabSize, .max_positions = positions});
  }
  Chat chat(GenerationSettings settings, bool reuse = true) {
    settings.chat_template = "oasst1";
    return Chat({*model, memory, DType::f32, *tokenizer, nullptr, reuse}, settings);
  }
  TemporaryFolder folder;
  std::unique_ptr<Backend> backend;
  Memory memory;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const Model> model;
};

std::string say(Chat& chat, const std::string& text) {
  std::string shown;
  const std::string answer = chat.say(text, [&](const std::string& piece) { shown += piece; });
  CHECK(shown.starts_with(answer));
  return answer;
}

}  // namespace

TEST_CASE("a conversation is a function of its seed and begins anew after a reset") {
  Fixture f(400);
  const GenerationSettings settings{.max_new_tokens = 12, .seed = 3};
  Chat first = f.chat(settings), second = f.chat(settings), other = f.chat({.max_new_tokens = 12, .seed = 4});
  const std::string answer = say(first, "Hi");
  CHECK(answer == say(second, "Hi"));
  CHECK(answer != say(other, "Hi"));
  const std::string next = say(first, "Why?");
  CHECK(next == say(second, "Why?"));
  // Greedy, so that the answers differ by the history alone.
  Chat greedy = f.chat({.sampling = {}, .max_new_tokens = 12});
  const std::string alone = say(greedy, "Why?");
  CHECK(say(greedy, "Why?") != alone);
  greedy.reset();
  CHECK(say(greedy, "Why?") == alone);
  // However its tokens are guessed.
  Chat plain = f.chat({.sampling = {}, .max_new_tokens = 12, .drafts = 0});
  Chat guessed = f.chat({.sampling = {}, .max_new_tokens = 12, .drafts = 8});
  CHECK(say(plain, "Why?") == alone);
  CHECK(say(guessed, "Why?") == alone);
}

TEST_CASE("a turn reads what is new of its conversation and answers as if it had read all") {
  Fixture f(400);
  for (const char* numerics : {"exact", "fast"}) {
    INFO(numerics);
    const GenerationSettings settings{.max_new_tokens = 12, .seed = 3, .decode_numerics = numerics};
    Chat chat = f.chat(settings), reader = f.chat(settings, false);
    int64_t before = 0;
    for (int turn = 0; turn < 12; ++turn) {  // more than the context holds: the oldest are forgotten
      if (turn == 8) {
        chat.reset();
        reader.reset();
      }
      const std::string question = fmt::format("Question {}?", turn);
      CHECK(say(chat, question) == say(reader, question));
      CHECK(chat.prompt_tokens() == reader.prompt_tokens());
      CHECK(reader.read_tokens() == reader.prompt_tokens());
      // The answer before was read already, unless its rows are of the decode class.
      if (turn > 0 && turn < 4) CHECK(chat.read_tokens() <= chat.prompt_tokens() - before);
      before = chat.prompt_tokens();
    }
    CHECK(chat.forgotten() == reader.forgotten());
  }
}

TEST_CASE("the oldest turns are forgotten when the context is full and too long a question is refused") {
  Fixture f(120);
  Chat chat = f.chat({.sampling = {}, .max_new_tokens = 20});
  for (int i = 0; i < 6; ++i) say(chat, "Question " + std::to_string(i));
  CHECK(chat.forgotten() > 0);
  CHECK(chat.forgotten() % 2 == 0);
  const int64_t before = chat.forgotten();
  CHECK_THROWS_WITH(chat.say(std::string(150, 'x'), [](const std::string&) {}), Contains("120 positions"));
  CHECK(chat.forgotten() == before);
  say(chat, "Question");
  chat.reset();
  CHECK(chat.forgotten() == 0);
}

TEST_CASE("chats and files of questions read the drafts that their settings ask for") {
  TemporaryFolder folder;
  write_tiny_tokenizer(folder.path());
  const auto tokenizer = load_tokenizer(folder.path());
  const auto backend = make_counting_backend();
  Memory memory(*backend);
  constexpr int64_t kVocab = 20'000;  // so that logits take the most
  const auto model = load_tiny_model(memory, {.vocab = kVocab}, {.shapes_only = true});
  const QuestionFile file = parse_questions("q.jsonl", R"({"question_id": 1, "text": "x", "category": "c"})");
  const AnsweringSubject base{};
  const auto peaks = [&](int64_t drafts) {
    const GenerationSettings settings{.chat_template = "oasst1", .max_new_tokens = 30, .drafts = drafts};
    memory.reset_peak();
    Chat({*model, memory, DType::f32, *tokenizer}, settings).say("x", [](const std::string&) {});
    const size_t chat = memory.peak();
    memory.reset_peak();
    answer_questions({*model, memory, DType::f32, *tokenizer}, file, settings, std::span(&base, 1));
    return std::pair(chat, memory.peak());
  };
  const auto [chat, answers] = peaks(0);
  const auto [chat_drafts, answers_drafts] = peaks(15);
  constexpr size_t kMore = 10 * kVocab * sizeof(float);
  CHECK(chat_drafts > chat + kMore);
  CHECK(answers_drafts > answers + kMore);
}

TEST_CASE("the end tokens of generation_config.json end the answers of chats and of local judges") {
  TemporaryFolder folder;
  write_tiny_tokenizer(folder.path());
  write_tiny_model(folder.path(), {.vocab = TinyTokenizer::kVocabSize, .max_positions = 400});
  const auto tokenizer = load_tokenizer(folder.path());
  const auto backend = make_backend("auto");
  Memory memory(*backend);
  // Tokens of a judge's answer, and characters of a chat's.
  const auto lengths = [&] {
    const auto model = load_model(folder.path(), memory, {});
    const auto judge = make_model_judge(
        {.model = model.get(), .memory = &memory, .tokenizer = tokenizer.get(), .chat_template = "oasst1"});
    const ChatReply reply = judge->ask({.system = "", .user = "Hi", .temperature = 0, .max_tokens = 12});
    Chat chat({*model, memory, DType::f32, *tokenizer}, {.chat_template = "oasst1", .max_new_tokens = 12});
    return std::pair(reply.answer_tokens, say(chat, "Hi").size());
  };
  const auto [judged, said] = lengths();
  CHECK(judged == 12);
  std::vector<int32_t> all(TinyTokenizer::kVocabSize);
  std::iota(all.begin(), all.end(), 0);
  write_file(folder.path() / "generation_config.json",
             fmt::format(R"({{"eos_token_id": [{}]}})", fmt::join(all, ", ")));
  const auto [judged_now, said_now] = lengths();
  CHECK(judged_now == 1);
  CHECK(said_now < said);
}

TEST_CASE("a local judge replies alike to questions asked together and alone") {
  Fixture f(400);
  const auto judge = make_model_judge({.model = f.model.get(),
                                       .memory = &f.memory,
                                       .tokenizer = f.tokenizer.get(),
                                       .chat_template = "oasst1"});
  // More than it works on at a time, of two lengths of answers, with a beginning that is worth reading once.
  std::vector<ChatRequest> requests;
  for (int i = 0; i < 3 * kJudgeBatch; ++i)
    requests.push_back({.system = "",
                        .user = std::string(100, 'a') + std::string(static_cast<size_t>(3 * i + 1), 'b'),
                        .temperature = i % 2 * 0.7,
                        .max_tokens = 3 + i / 16});
  requests.push_back({.system = "", .user = std::string(400, 'x'), .temperature = 0, .max_tokens = 4});
  CHECK(judge->at_once() >= static_cast<int64_t>(requests.size()));
  std::vector<std::optional<ChatReply>> replies(requests.size());
  judge->ask_together(requests, [&](size_t i, const ChatReply& reply) {
    CHECK(!replies[i]);
    replies[i] = reply;
    return true;
  });
  for (size_t i = 0; i < requests.size(); ++i) {
    const ChatReply alone = judge->ask(requests[i]);
    REQUIRE(replies[i]);
    CHECK((replies[i]->kind == alone.kind && replies[i]->text == alone.text));
    CHECK((replies[i]->prompt_tokens == alone.prompt_tokens &&
           replies[i]->answer_tokens == alone.answer_tokens));
  }
  CHECK(replies.back()->kind == ChatReply::Kind::impossible);
  // Nobody wants more than three.
  size_t heard = 0;
  judge->ask_together(requests, [&](size_t, const ChatReply&) { return ++heard < 3; });
  CHECK(heard == 3);
}

TEST_CASE("the program talks through a pipe") {
  Workbench bench;
  bench.write("input", "Hi\n\n/what\n/reset\nHi\n/quit\nnever read\n");
  auto talk = [&](const std::string& more) {
    const std::string command = fmt::format(
        "cd '{}' && '{}' chat --model model --greedy --max-new-tokens 6 {} < input > said "
        "2> noted",
        bench.path().string(), QLORA_PROGRAM, more);
    return std::system(command.c_str());
  };
  REQUIRE(talk("--template oasst1") == 0);
  const std::string said = read_file(bench.path() / "said"), noted = read_file(bench.path() / "noted");
  INFO(noted);
  CHECK_THAT(noted, Contains("unknown command /what") && Contains("a new conversation"));
  // The same question to a fresh conversation, twice: two equal halves.
  REQUIRE(said.size() % 2 == 0);
  CHECK(said.substr(0, said.size() / 2) == said.substr(said.size() / 2));
  CHECK(said.ends_with("\n"));
  CHECK(talk("--template guanco") != 0);
  CHECK_THAT(read_file(bench.path() / "noted"), Contains("guanaco"));
}
