// SPDX-License-Identifier: Apache-2.0
#include <hookline/fields.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace hookline {
namespace {

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string as_text(std::span<const std::byte> in) {
  return {reinterpret_cast<const char*>(in.data()), in.size()};
}

class Fields : public testing::Test {
 protected:
  FieldReader reader() const { return FieldReader("nic-82576/queue0", writer.bytes(), 1000); }

  std::array<std::byte, 256> buffer{};
  FieldWriter writer{buffer};
  std::array<std::byte, 4> four{};
};

TEST_F(Fields, RoundTrip) {
  const std::string longest(64, 'n');
  ASSERT_TRUE(writer.put("head", bytes("abcd")));
  ASSERT_TRUE(writer.put("empty", {}));
  ASSERT_TRUE(writer.put(longest, bytes("wxyz")));
  FieldReader in = reader();
  ASSERT_TRUE(in.get("head", four));
  EXPECT_EQ(as_text(four), "abcd");
  ASSERT_TRUE(in.get("empty", {}));
  ASSERT_TRUE(in.get(longest, four));
  EXPECT_EQ(as_text(four), "wxyz");
  EXPECT_TRUE(in.finish());
  EXPECT_TRUE(FieldReader("empty", {}).finish());
}

TEST_F(Fields, AValueIsFilledAndReadInPlaceWithTheEncodingOfPut) {
  const auto at = writer.reserve("head", 4);
  ASSERT_TRUE(at);
  std::ranges::copy(bytes("abcd"), at->begin());
  ASSERT_TRUE(writer.put("next", bytes("wxyz")));
  std::array<std::byte, 256> other{};
  FieldWriter copied(other);
  ASSERT_TRUE(copied.put("head", bytes("abcd")));
  ASSERT_TRUE(copied.put("next", bytes("wxyz")));
  EXPECT_EQ(as_text(writer.bytes()), as_text(copied.bytes()));

  FieldReader in = reader();
  const auto value = in.view("head", 4);
  ASSERT_TRUE(value);
  EXPECT_EQ(as_text(*value), "abcd");
  EXPECT_GE(value->data(), writer.bytes().data()) << "a copy was made";
  EXPECT_LT(value->data(), writer.bytes().data() + writer.bytes().size()) << "a copy was made";
  ASSERT_TRUE(in.get("next", four));
  EXPECT_EQ(as_text(four), "wxyz");
}

TEST_F(Fields, AValueInPlaceIsRefusedAboveItsBoundAndByItsName) {
  ASSERT_TRUE(writer.put("head", bytes("abcd")));
  FieldReader in = reader();
  const auto large = in.view("head", 3);
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, EINVAL);
  EXPECT_EQ(large.error().text,
            "device-state stream: section \"nic-82576/queue0\": field \"head\" at offset 1000: has 4 bytes, "
            "expected at most 3: written by another version of the plugin");
  EXPECT_FALSE(in.view("tail", 4));
  const auto small = in.view("head", 4);
  ASSERT_TRUE(small) << "a refusal changes nothing";
  EXPECT_EQ(small->size(), 4U);
  EXPECT_EQ(writer.reserve("large", 1000).error().code, ENOSPC);
}

TEST_F(Fields, EncodingIsTheDocumentedOne) {
  ASSERT_TRUE(writer.put("a/b", bytes("\x07\x08")));
  ASSERT_TRUE(writer.put("c", {}, {.optional = true}));
  EXPECT_EQ(as_text(writer.bytes()), std::string("\x03"
                                                 "a/b\x02\0\0\0\x07\x08\x81"
                                                 "c\0\0\0\0",
                                                 16));
}

TEST_F(Fields, AFullBufferTakesNothing) {
  std::array<std::byte, 12> small{};
  FieldWriter out(small);
  const auto full = out.put("head", bytes("abcd"));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ENOSPC);
  EXPECT_EQ(
      full.error().text,
      "field \"head\": 13 bytes do not fit into the 12 that are left of the chunk; write another chunk");
  EXPECT_EQ(out.bytes().size(), 0U);
  EXPECT_TRUE(out.put("head", bytes("abc")));
  EXPECT_EQ(out.bytes().size(), small.size());
}

TEST_F(Fields, BadNamesAreRefused) {
  for (const std::string& name :
       {std::string(), std::string(65, 'a'), std::string("Head"), std::string("a b")}) {
    const auto put = writer.put(name, {});
    ASSERT_FALSE(put) << name;
    EXPECT_EQ(put.error().code, EINVAL);
    EXPECT_EQ(put.error().text, "field name \"" + name + "\": use 1 to 64 of a-z 0-9 - _ . /");
  }
}

TEST_F(Fields, OptionalFieldsMayBeSkippedWhereverTheyStand) {
  ASSERT_TRUE(writer.put("hint", bytes("1"), {.optional = true}));
  ASSERT_TRUE(writer.put("head", bytes("abcd")));
  ASSERT_TRUE(writer.put("hint2", bytes("2"), {.optional = true}));
  FieldReader in = reader();
  EXPECT_TRUE(in.has("hint"));
  EXPECT_TRUE(in.has("head"));
  EXPECT_FALSE(in.has("hint2")) << "head may not be skipped";
  ASSERT_TRUE(in.get("head", four));
  EXPECT_TRUE(in.has("hint2"));
  EXPECT_TRUE(in.finish());
  EXPECT_FALSE(in.has("hint2"));
}

TEST_F(Fields, RefusalsNameSectionFieldOffsetAndReason) {
  ASSERT_TRUE(writer.put("head", bytes("abcd")));
  ASSERT_TRUE(writer.put("tail", bytes("abcdefgh")));
  FieldReader in = reader();
  EXPECT_EQ(in.get("tail", four).error().text,
            "device-state stream: section \"nic-82576/queue0\": field \"tail\" at offset 1000: was expected, "
            "\"head\" is "
            "there: written by another version of the plugin");
  ASSERT_TRUE(in.get("head", four));
  four.fill(std::byte{0x55});
  EXPECT_EQ(in.get("tail", four).error().text,
            "device-state stream: section \"nic-82576/queue0\": field \"tail\" at offset 1013: has 8 bytes, "
            "expected 4: "
            "written by another version of the plugin");
  EXPECT_EQ(as_text(four), "UUUU") << "a failed get() leaves the value alone";
  EXPECT_EQ(in.finish().error().text,
            "device-state stream: section \"nic-82576/queue0\": field \"tail\" at offset 1013: is unknown "
            "here and not "
            "optional: written by a newer version of the plugin; upgrade it on this host");
  std::array<std::byte, 8> eight{};
  ASSERT_TRUE(in.get("tail", eight));
  const auto missing = in.get("base", four);
  EXPECT_EQ(missing.error().code, EINVAL);
  EXPECT_EQ(missing.error().text,
            "device-state stream: section \"nic-82576/queue0\": field \"base\": is missing, the section ends "
            "before it: "
            "written by another version of the plugin");
}

TEST_F(Fields, RejectPointsAtTheValue) {
  ASSERT_TRUE(writer.put("base", bytes("abcd")));
  ASSERT_TRUE(writer.put("head", bytes("abcd")));
  FieldReader in = reader();
  ASSERT_TRUE(in.get("base", four));
  ASSERT_TRUE(in.get("head", four));
  const Error error = in.reject("head", "300 is not below the ring size 256").value();
  EXPECT_EQ(error.code, EINVAL);
  EXPECT_EQ(error.text,
            "device-state stream: section \"nic-82576/queue0\": field \"head\" at offset 1013: 300 is not "
            "below the ring "
            "size 256");
  EXPECT_EQ(FieldReader("model", {}).reject("ring", "overlaps").value().text,
            "device-state stream: section \"model\": field \"ring\": overlaps");
}

TEST_F(Fields, EveryTruncationIsRefused) {
  ASSERT_TRUE(writer.put("head", bytes("abcd")));
  for (size_t size = 1; size < writer.bytes().size(); ++size) {
    const std::vector<std::byte> cut(writer.bytes().begin(),
                                     writer.bytes().begin() + static_cast<ptrdiff_t>(size));
    FieldReader in("s", cut, 1000);
    const auto got = in.get("head", four);
    ASSERT_FALSE(got) << size;
    EXPECT_EQ(got.error().code, EBADMSG);
    EXPECT_EQ(got.error().text,
              size < 9
                  ? "device-state stream: section \"s\": a field at offset 1000: reaches beyond the section"
                  : "device-state stream: section \"s\": field \"head\" at offset 1000: reaches beyond "
                    "the section");
    EXPECT_FALSE(in.has("head"));
    EXPECT_FALSE(in.finish());
  }
}

TEST_F(Fields, HostileEncodingsAreRefused) {
  const struct {
    std::string_view payload;
    std::string_view text;
  } cases[] = {
      {{"\x01"
        "a\xff\xff\xff\xff",
        6},
       "device-state stream: section \"s\": field \"a\": reaches beyond the section"},
      {{"\0\0\0\0\0", 5},
       "device-state stream: section \"s\": a field: has a name that is not 1 to 64 of a-z 0-9 - _ . /"},
      {{"\x01\x1b\0\0\0\0", 6},
       "device-state stream: section \"s\": a field: has a name that is not 1 to 64 of a-z 0-9 - _ . /"},
  };
  for (const auto& c : cases) {
    FieldReader in("s", bytes(c.payload));
    const auto got = in.get("a", four);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, EBADMSG);
    EXPECT_EQ(got.error().text, c.text);
  }
}

}  // namespace
}  // namespace hookline
