// An OpenAI-compatible endpoint, by libcurl.
#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/json.h"
#include "eval/judge/chat_client.h"

namespace qlora {

namespace {

constexpr size_t kMaxReply = 16 << 20;  // a longer body is garbage
constexpr size_t kShownError = 300;     // bytes of a server's words in a message

size_t append_body(const char* data, size_t size, size_t count, void* body) {
  auto& text = *static_cast<std::string*>(body);
  if (text.size() + size * count > kMaxReply) return 0;  // libcurl ends the transfer
  text.append(data, size * count);
  return size * count;
}

// What a reply's head says about coming again.
struct Head {
  std::string retry_after, date;
};

// The value of the header `name` (in small letters), or nothing.
std::optional<std::string> value_of(std::string_view line, std::string_view name) {
  if (line.size() <= name.size() || line[name.size()] != ':') return std::nullopt;
  for (size_t i = 0; i < name.size(); ++i)
    if (std::tolower(static_cast<unsigned char>(line[i])) != name[i]) return std::nullopt;
  line.remove_prefix(name.size() + 1);
  constexpr std::string_view kBlank = " \t\r\n";
  line.remove_prefix(std::min(line.find_first_not_of(kBlank), line.size()));
  return std::string(line.substr(0, line.find_last_not_of(kBlank) + 1));
}

size_t read_header(const char* data, size_t size, size_t count, void* head) {
  const std::string_view line(data, size * count);
  auto& all = *static_cast<Head*>(head);
  if (auto value = value_of(line, "retry-after")) all.retry_after = *value;
  if (auto value = value_of(line, "date")) all.date = *value;
  return size * count;
}

// Seconds, or a date (RFC 9110, 10.2.3), which counts from the server's own clock where it tells its time.
std::optional<double> seconds_of(const Head& head) {
  const std::string& value = head.retry_after;
  if (value.empty()) return std::nullopt;
  double seconds = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error == std::errc() && end == value.data() + value.size())
    return seconds >= 0 ? std::optional(seconds) : std::nullopt;
  const time_t then = curl_getdate(value.c_str(), nullptr);
  if (then < 0) return std::nullopt;
  const time_t told = head.date.empty() ? -1 : curl_getdate(head.date.c_str(), nullptr);
  return std::max(0.0, std::difftime(then, told < 0 ? std::time(nullptr) : told));
}

class HttpChatClient : public ChatClient {
 public:
  explicit HttpChatClient(const HttpChatOptions& options) : options_(options) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    curl_ = curl_easy_init();
    QLORA_CHECK(curl_ != nullptr, failure, "libcurl does not start");
    headers_ = curl_slist_append(headers_, "Content-Type: application/json");
    headers_ = curl_slist_append(headers_, "Expect:");  // no waiting for the server's leave to send the body
    if (!options_.key.empty())
      headers_ = curl_slist_append(headers_, ("Authorization: Bearer " + options_.key).c_str());
    while (options_.base_url.ends_with("/")) options_.base_url.pop_back();
    url_ = options_.base_url + "/chat/completions";
  }
  ~HttpChatClient() override {
    curl_slist_free_all(headers_);
    curl_easy_cleanup(curl_);
  }

  ChatReply ask(const ChatRequest& request) override {
    const std::string content = body_of(request);
    std::string body;
    Head head;
    char reason[CURL_ERROR_SIZE] = "";
    curl_easy_reset(curl_);
    curl_easy_setopt(curl_, CURLOPT_URL, url_.c_str());
    curl_easy_setopt(curl_, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl_, CURLOPT_HTTPHEADER, headers_);
    curl_easy_setopt(curl_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(content.size()));
    curl_easy_setopt(curl_, CURLOPT_POSTFIELDS, content.c_str());
    curl_easy_setopt(curl_, CURLOPT_TIMEOUT_MS, static_cast<long>(1000 * options_.timeout_s));
    curl_easy_setopt(curl_, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(1000 * options_.connect_timeout_s));
    curl_easy_setopt(curl_, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(curl_, CURLOPT_WRITEFUNCTION, append_body);
    curl_easy_setopt(curl_, CURLOPT_WRITEDATA, &body);
    curl_easy_setopt(curl_, CURLOPT_HEADERFUNCTION, read_header);
    curl_easy_setopt(curl_, CURLOPT_HEADERDATA, &head);
    const CURLcode code = curl_easy_perform(curl_);
    ChatReply reply;
    reply.retry_after = seconds_of(head);
    if (code != CURLE_OK) {
      reply.text = without_key(*reason != '\0' ? reason : curl_easy_strerror(code));
      // What is no HTTP at all counts as garbage (libcurl calls it an unsupported protocol).
      reply.kind = code == CURLE_URL_MALFORMAT ? ChatReply::Kind::refused : ChatReply::Kind::again;
      return reply;
    }
    long status = 0;
    curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
    if (status == 200)
      read_answer(body, reply);
    else
      read_refusal(status, body, reply);
    return reply;
  }

 private:
  std::string body_of(const ChatRequest& request) const {
    Json messages = Json::array();
    if (!request.system.empty()) messages.push_back({{"role", "system"}, {"content", request.system}});
    messages.push_back({{"role", "user"}, {"content", request.user}});
    const Json json = {{"model", options_.model},
                       {"messages", messages},
                       {"temperature", request.temperature},
                       {"max_tokens", request.max_tokens}};
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  void read_answer(const std::string& body, ChatReply& reply) const {
    const Json json = Json::parse(body, nullptr, false);
    const Json* content = nullptr;
    if (json.is_object() && json.contains("choices") && json["choices"].is_array() &&
        !json["choices"].empty()) {
      const Json& choice = json["choices"][0];
      if (choice.is_object() && choice.contains("message") && choice["message"].is_object() &&
          choice["message"].contains("content"))
        content = &choice["message"]["content"];
    }
    if (content == nullptr || !content->is_string()) {
      reply.text = "the server's reply is no chat completion";
      return;
    }
    reply.kind = ChatReply::Kind::answer;
    reply.text = without_key(content->get<std::string>());
    if (auto usage = json.find("usage"); usage != json.end() && usage->is_object()) {
      auto count = [&](const char* key) {
        auto value = usage->find(key);
        return value != usage->end() && value->is_number_integer() ? value->get<int64_t>() : int64_t{0};
      };
      reply.prompt_tokens = count("prompt_tokens");
      reply.answer_tokens = count("completion_tokens");
    }
  }

  void read_refusal(long status, const std::string& body, ChatReply& reply) const {
    bool again = status == 408 || status == 409 || status == 425 || status == 429 || status >= 500;
    bool this_one = status == 400 || status == 413 || status == 422;
    reply.kind = again      ? ChatReply::Kind::again
                 : this_one ? ChatReply::Kind::impossible
                            : ChatReply::Kind::refused;
    const Json json = Json::parse(body, nullptr, false);
    std::string words = body;
    if (json.is_object() && json.contains("error") && json["error"].is_object() &&
        json["error"].contains("message") && json["error"]["message"].is_string())
      words = json["error"]["message"].get<std::string>();
    reply.text = fmt::format("HTTP {}: {}", status, without_key(words).substr(0, kShownError));
  }

  std::string without_key(std::string text) const {
    if (options_.key.empty()) return text;
    for (size_t at = text.find(options_.key); at != std::string::npos; at = text.find(options_.key, at))
      text.replace(at, options_.key.size(), "[key]");
    return text;
  }

  HttpChatOptions options_;
  std::string url_;
  CURL* curl_ = nullptr;
  curl_slist* headers_ = nullptr;
};

}  // namespace

std::unique_ptr<ChatClient> make_http_chat_client(const HttpChatOptions& options) {
  QLORA_CHECK(options.base_url.starts_with("http://") || options.base_url.starts_with("https://"), usage,
              "the address of a judge (OPENAI_BASE_URL) begins with http:// or https://");
  QLORA_CHECK(!options.model.empty(), usage, "the judge's model needs a name");
  return std::make_unique<HttpChatClient>(options);
}

}  // namespace qlora
