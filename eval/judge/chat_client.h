#pragma once
// Somebody who answers a chat: an endpoint on the network, or a model of our own.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace qlora {

struct ChatRequest {
  std::string system, user;
  double temperature = 0.2;
  int max_tokens = 1024;
};

struct ChatReply {
  enum class Kind {
    answer,
    again,       // may succeed later: too many requests, a fault of the server, a cut connection, garbage
    impossible,  // this question will never be answered; others may: too long, rejected
    refused      // nothing will: a wrong key, an unknown model
  };
  Kind kind = Kind::again;
  std::string text;  // the answer; otherwise why there is none, without secrets
  int64_t prompt_tokens = 0, answer_tokens = 0;
  std::optional<double> retry_after;  // seconds, as the server asked by a number or a date
};

// From one thread at a time.
class ChatClient {
 public:
  virtual ~ChatClient() = default;
  // One attempt.
  virtual ChatReply ask(const ChatRequest&) = 0;
  // How many requests it wants to be given at a time: more than one where they cost less together.
  virtual int64_t at_once() const { return 1; }
  // One attempt of each. `replied(i, reply)` hears of every reply as soon as it is there, in any order; after
  // it returned false the others have none. No reply depends on what else is asked.
  using Replied = std::function<bool(size_t request, const ChatReply&)>;
  virtual void ask_together(std::span<const ChatRequest> requests, const Replied& replied);
};

struct HttpChatOptions {
  std::string base_url = "https://api.openai.com/v1";
  std::string key;    // sent as a bearer token; in no message, file or log, even where a server repeats it
  std::string model;  // gpt-4, ...
  double timeout_s = 120, connect_timeout_s = 20;
};

// An OpenAI-compatible endpoint: POST base_url/chat/completions. One connection, kept open between requests.
std::unique_ptr<ChatClient> make_http_chat_client(const HttpChatOptions&);

}  // namespace qlora
