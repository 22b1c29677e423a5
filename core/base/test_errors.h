#pragma once
// For tests only: what an operation complains of.

#include <catch2/catch.hpp>
#include <string>

#include "core/base/error.h"

namespace qlora::test {

// What the body says as it fails; "no error" when it does not.
template <class Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// The same of an error that must be of this kind.
template <class Body>
std::string message_of(ErrorKind kind, Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    CHECK(e.kind() == kind);
    return e.what();
  }
  return "no error";
}

}  // namespace qlora::test
