// SPDX-License-Identifier: Apache-2.0
#include "worker_link.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include <gmock/gmock.h>

namespace hookline::loader {
namespace {

hookline_pf_request set_mac() {
  hookline_pf_request request{};
  request.what = HOOKLINE_PF_SET_MAC;
  request.mac[5] = 7;
  return request;
}

TEST(WorkerMessageTest, RL3_TakesNothingButWholeKnownMessages) {
  WorkerMessage message{.word = WorkerWord::pf_request, .seq = 1, .request = set_mac()};
  EXPECT_TRUE(parse_worker_message(&message, sizeof message));
  EXPECT_FALSE(parse_worker_message(&message, sizeof message - 1));
  EXPECT_FALSE(parse_worker_message(&message, sizeof message + 1));
  EXPECT_FALSE(parse_worker_message(&message, 0));

  message.request.what = 99;
  EXPECT_FALSE(parse_worker_message(&message, sizeof message)) << "no such request";
  message.request.what = HOOKLINE_PF_GET;
  message.word = static_cast<WorkerWord>(4);
  EXPECT_FALSE(parse_worker_message(&message, sizeof message)) << "no such word";
  message.word = WorkerWord::pf_request;
  message.reserved = 1;
  EXPECT_FALSE(parse_worker_message(&message, sizeof message));
}

class WorkerLinkTest : public testing::Test {
 protected:
  WorkerLinkTest() {
    auto ends = worker_socketpair();
    raw_ = ends->first.get();
    supervisor_.emplace(std::move(ends->first), [this](hookline_pf_request& r) { return handler_(r); });
    worker_end_ = ends->second.get();
    worker_.emplace(std::move(ends->second));
  }
  WorkerPort::Heard hear() {
    pollfd ready{supervisor_->fd(), POLLIN, 0};
    ::poll(&ready, 1, 5000);
    return supervisor_->hear();
  }
  std::function<Result<void>(hookline_pf_request&)> handler_ = [](hookline_pf_request&) { return Result<void>(); };
  std::optional<WorkerPort> supervisor_;
  std::optional<SupervisorPort> worker_;
  int raw_ = -1, worker_end_ = -1;
};

TEST_F(WorkerLinkTest, TellsThatItIsReady) {
  EXPECT_EQ(supervisor_->hear(), WorkerPort::Heard::nothing);
  worker_->tell_ready();
  EXPECT_EQ(hear(), WorkerPort::Heard::ready);
}

TEST_F(WorkerLinkTest, AnAnswerCarriesWhatThePfSaid) {
  handler_ = [](hookline_pf_request& r) {
    r.vlan = static_cast<uint16_t>(r.mac[5] + 1);
    return Result<void>();
  };
  std::thread supervisor([this] { EXPECT_EQ(hear(), WorkerPort::Heard::request); });
  auto request = set_mac();
  EXPECT_TRUE(worker_->request(request));
  EXPECT_EQ(request.vlan, 8);
  supervisor.join();
}

TEST_F(WorkerLinkTest, ARefusalKeepsItsErrno) {
  handler_ = [](hookline_pf_request&) { return Result<void>(fail(EPERM, "no")); };
  std::thread supervisor([this] { hear(); });
  auto request = set_mac();
  const auto done = worker_->request(request);
  supervisor.join();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, EPERM);
}

TEST_F(WorkerLinkTest, AnswersToGivenUpRequestsAreDropped) {
  WorkerMessage late{.word = WorkerWord::pf_answer, .error = EIO, .seq = 0, .request = set_mac()};
  ASSERT_GT(::send(raw_, &late, sizeof late, 0), 0);
  std::thread supervisor([this] { hear(); });
  auto request = set_mac();
  EXPECT_TRUE(worker_->request(request));
  supervisor.join();
}

TEST_F(WorkerLinkTest, RL5_AWorkerWithoutSupervisorGoesOn) {
  supervisor_.reset();
  auto request = set_mac();
  EXPECT_EQ(worker_->request(request).error().code, ENOTCONN);
  worker_->tell_ready();
}

TEST_F(WorkerLinkTest, RL3_NonsenseIsHeardAndNotActedOn) {
  bool asked = false;
  handler_ = [&](hookline_pf_request&) {
    asked = true;
    return Result<void>();
  };
  const WorkerMessage answer{.word = WorkerWord::pf_answer, .request = set_mac()};
  for (const auto& bytes : {std::string("x"), std::string(4096, '\xff'),
                            std::string(reinterpret_cast<const char*>(&answer), sizeof answer)}) {
    ASSERT_GT(::send(worker_end_, bytes.data(), bytes.size(), 0), 0);
    EXPECT_EQ(hear(), WorkerPort::Heard::nonsense);
  }
  EXPECT_FALSE(asked);
  worker_.reset();
  EXPECT_EQ(hear(), WorkerPort::Heard::closed);
}

}  // namespace
}  // namespace hookline::loader
