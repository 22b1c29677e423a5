#include <catch2/catch.hpp>

#include <cstring>
#include <fstream>

#include "core/base/error.h"
#include "core/base/half.h"
#include "core/base/test_data.h"
#include "core/io/safetensors.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

// A file with this header text and this many bytes of data.
Path raw(const Path& path, const std::string& header, size_t data) {
  std::ofstream f(path, std::ios::binary);
  uint64_t length = header.size();
  f.write(reinterpret_cast<const char*>(&length), 8);
  f << header << std::string(data, '\1');
  return path;
}

std::string message(const Path& path) {
  try {
    SafetensorsFile file(path);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::data);
    CHECK_THAT(e.what(), Contains(path.string()));
    return e.what();
  }
  return "no error";
}

std::string message_of(const Path& path, const std::string& header, size_t data) {
  return message(raw(path, header, data));
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& v) {
  return std::as_bytes(std::span(v));
}

}  // namespace

TEST_CASE("tensors of every type are read back as they were written") {
  test::TemporaryFolder folder;
  Path path = folder.path() / "x.safetensors";
  std::vector<float> f{1.5f, -2, 0};
  std::vector<uint16_t> h{to_f16(0.5f).bits, to_f16(-3).bits}, b{to_bf16(0.25f).bits};
  std::vector<double> d{1e-3};
  std::vector<uint8_t> u{7, 8, 9};
  std::vector<int64_t> l{-1, 1};
  write_safetensors(path,
                    std::vector<TensorOut>{{"z.f", DType::f32, {3, 1}, bytes_of(f)},
                                           {"h", DType::f16, {2}, bytes_of(h)},
                                           {"b", DType::bf16, {}, bytes_of(b)},
                                           {"d", DType::f64, {1, 1, 1}, bytes_of(d)},
                                           {"u", DType::u8, {3}, bytes_of(u)},
                                           {"l", DType::i64, {2}, bytes_of(l)},
                                           {"none", DType::f32, {0, 4}, {}}},
                    {{"format", "pt"}});
  SafetensorsFile file(path);
  CHECK(file.metadata().at("format") == "pt");
  CHECK(file.tensors().size() == 7);
  CHECK(file.at("z.f").shape == std::vector<int64_t>{3, 1});
  CHECK(to_floats(file.at("z.f")) == f);
  CHECK(to_floats(file.at("h")) == std::vector<float>{0.5f, -3});
  CHECK(to_floats(file.at("b")) == std::vector<float>{0.25f});
  CHECK(to_floats(file.at("d")) == std::vector<float>{1e-3f});
  CHECK(to_floats(file.at("none")).empty());
  CHECK(std::memcmp(file.at("u").bytes.data(), u.data(), 3) == 0);
  CHECK(file.at("l").type == DType::i64);
  CHECK_THROWS_WITH(to_floats(file.at("u")), Contains("u8"));
  CHECK_THROWS_WITH(file.at("z.g"), Contains("did you mean `z.f`"));
  CHECK(file.find("nothing") == nullptr);
}

TEST_CASE("a safetensors header that lies is refused with the tensor and the reason") {
  test::TemporaryFolder folder;
  const Path p = folder.path() / "bad.safetensors";
  const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  CHECK(message_of(p, "{" + a + "}", 8) == "no error");
  CHECK(message_of(p, "{" + a + "}   ", 8) == "no error");
  CHECK(message_of(p, "{}", 0) == "no error");
  CHECK_THAT(message_of(p, "{" + a + "}", 7), Contains("`a`") && Contains("truncated"));
  CHECK_THAT(message_of(p, "{" + a + "}", 9), Contains("1 bytes follow"));
  CHECK_THAT(message_of(p, "{" + a + "," + a + "}", 8), Contains("`a` is in the header twice"));
  CHECK_THAT(message_of(p, "{" + a + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", 8),
             Contains("overlap"));
  CHECK_THAT(message_of(p, "{" + a + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}})", 10),
             Contains("belong to no tensor"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
             Contains("does not fill"));
  CHECK_THAT(
      message_of(p, R"({"a":{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,4]}})", 4),
      Contains("does not fill"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0),
             Contains("does not fill"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), Contains("-1"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4),
             Contains("1.5"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4),
             Contains("not a list"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4),
             Contains("4 to 0"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", 4),
             Contains("18446744073709551615"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}})", 4),
             Contains("F8_E5M2"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[1]}})", 4), Contains("data_offsets"));
  CHECK_THAT(message_of(p, R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4)", 4),
             Contains("not valid JSON"));
  CHECK_THAT(message_of(p, "[1]", 0), Contains("not a JSON object"));
  CHECK_THAT(message_of(p, R"({"__metadata__":{"a":1}})", 0), Contains("not a string"));
}

TEST_CASE("a safetensors file cut anywhere is refused and a changed byte never crashes") {
  test::TemporaryFolder folder;
  const Path path = folder.path() / "whole.safetensors", cut = folder.path() / "cut.safetensors";
  std::vector<float> f{1, 2, 3};
  std::vector<uint8_t> u{1, 2, 3, 4, 5};
  write_safetensors(
      path, std::vector<TensorOut>{{"a", DType::f32, {3}, bytes_of(f)}, {"u", DType::u8, {5}, bytes_of(u)}});
  const std::string whole = read_file(path);
  for (size_t n = 0; n < whole.size(); ++n) {
    std::ofstream(cut, std::ios::binary) << whole.substr(0, n);
    CHECK(message(cut) != "no error");
  }
  for (size_t i = 0; i < whole.size() - 17; ++i)
    for (int bit : {0, 7}) {
      std::string changed = whole;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      std::ofstream(cut, std::ios::binary) << changed;
      message(cut);
    }
}

TEST_CASE("writing refuses doubled names and wrong sizes and leaves no file") {
  test::TemporaryFolder folder;
  const Path path = folder.path() / "x.safetensors";
  std::vector<float> f{1, 2, 3};
  TensorOut good{"a", DType::f32, {3}, bytes_of(f)}, wrong{"b", DType::f32, {4}, bytes_of(f)};
  CHECK_THROWS_WITH(write_safetensors(path, std::vector<TensorOut>{good, good}), Contains("`a`"));
  CHECK_THROWS_WITH(write_safetensors(path, std::vector<TensorOut>{wrong}),
                    Contains("`b`") && Contains("[4]"));
  CHECK(std::filesystem::is_empty(folder.path()));
}
