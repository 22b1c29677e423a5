#pragma once
// The one exception type of the project. Includes only the standard library, so that device code may use it.

#include <stdexcept>
#include <string>

namespace qlora {

// What kind of thing went wrong; decides the exit code of the program.
enum class ErrorKind {
  failure = 1,  // something asked for could not be completed
  usage = 2,    // a wrong command line or configuration
  data = 3,     // a model, data or result file is missing or bad
  memory = 4,   // out of memory
  judge = 5,    // a judge's interface failed, or its budget is spent
};

// Thrown by everything in the library. The message is for a user: it names the file, line or tensor, what was
// expected, what was found, and what to do. The library never prints and never aborts.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

}  // namespace qlora
