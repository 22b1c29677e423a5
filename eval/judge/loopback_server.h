#pragma once
// For tests only: an HTTP server on 127.0.0.1 that can misbehave.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/base/check.h"

namespace qlora::test {

class LoopbackServer {
 public:
  struct Reply {
    int status = 200;
    std::string body, headers;   // headers: lines that end in \r\n
    double delay_s = 0;          // before the reply
    std::string cut_after;       // when not empty: these bytes, then the connection is closed
    bool close_at_once = false;  // not a byte
  };
  struct Request {
    int number = 0;  // from 0, over all connections
    std::string head, body;
  };
  using Handler = std::function<Reply(const Request&)>;

  explicit LoopbackServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    QLORA_CHECK(listener_ >= 0 && ::bind(listener_, any, size) == 0 && ::listen(listener_, 64) == 0 &&
                    ::getsockname(listener_, any, &size) == 0,
                failure, "no loopback server");
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~LoopbackServer() {
    stopping_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    ::close(listener_);
    acceptor_.join();
    for (std::thread& thread : connections_) thread.join();
  }
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  std::string url() const { return fmt::format("http://127.0.0.1:{}/v1", port_); }
  int requests() const { return count_; }
  int most_at_once() const { return most_; }

 private:
  void accept_all() {
    while (!stopping_) {
      int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) break;
      connections_.emplace_back([this, fd] { serve(fd); });
    }
  }

  void serve(int fd) {
    timeval patience{5, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    std::string text;
    size_t head_end = std::string::npos, length = 0;
    char buffer[4096];
    while (head_end == std::string::npos || text.size() < head_end + 4 + length) {
      ssize_t got = ::recv(fd, buffer, sizeof(buffer), 0);
      if (got <= 0) break;
      text.append(buffer, static_cast<size_t>(got));
      if (head_end == std::string::npos && (head_end = text.find("\r\n\r\n")) != std::string::npos) {
        size_t at = text.find("Content-Length: ");
        if (at < head_end) length = std::stoul(text.substr(at + 16));
      }
    }
    if (head_end != std::string::npos) {
      int now = ++at_once_;
      for (int most = most_; now > most && !most_.compare_exchange_weak(most, now);) {
      }
      const Reply reply = handler_({count_++, text.substr(0, head_end), text.substr(head_end + 4)});
      std::this_thread::sleep_for(std::chrono::duration<double>(reply.delay_s));
      --at_once_;  // before the client can go on
      answer(fd, reply);
    }
    ::close(fd);
  }

  static void answer(int fd, const Reply& reply) {
    if (reply.close_at_once) return;
    std::string text = reply.cut_after;
    if (text.empty())
      text = fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}", reply.status,
                         reply.body.size(), reply.headers, reply.body);
    for (size_t sent = 0; sent < text.size();) {
      ssize_t n = ::send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return;
      sent += static_cast<size_t>(n);
    }
  }

  Handler handler_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> count_{0}, at_once_{0}, most_{0};
  std::thread acceptor_;
  std::vector<std::thread> connections_;
};

// A chat completion that says `words`.
inline std::string completion(const std::string& words, int prompt_tokens = 50, int answer_tokens = 10) {
  return fmt::format(
      "{{\"choices\": [{{\"message\": {{\"role\": \"assistant\", \"content\": \"{}\"}}}}], \"usage\": "
      "{{\"prompt_tokens\": {}, \"completion_tokens\": {}}}}}",
      words, prompt_tokens, answer_tokens);
}

}  // namespace qlora::test
