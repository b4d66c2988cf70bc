// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <linux/pci_regs.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include <fmt/format.h>
#include <hookline/chain.hpp>
#include <hookline/model.h>
#include <hookline/software_device.hpp>

#include "tests/demo/model_protocol.hpp"
#include "userspace-loader/plugin_library.hpp"

namespace hookline::demo {

bool send_packet(int socket, const MessageHeader& head, std::span<const std::byte> bytes) {
  iovec parts[] = {{const_cast<MessageHeader*>(&head), sizeof head},
                   {const_cast<std::byte*>(bytes.data()), bytes.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof head + bytes.size());
}

bool receive_packet(int socket, Packet& packet) {
  packet.bytes.resize(kMostBytes);
  iovec parts[] = {{&packet.head, sizeof packet.head}, {packet.bytes.data(), packet.bytes.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  const ssize_t got = ::recvmsg(socket, &message, 0);
  if (got < static_cast<ssize_t>(sizeof packet.head)) return false;
  packet.bytes.resize(static_cast<size_t>(got) - sizeof packet.head);
  return true;
}

namespace {

Result<Chain> load_chain(const std::string& file) {
  auto plugin = loader::load_plugin(file, {.allow_untrusted = true, .rehearse = false});
  if (!plugin) return fail(plugin.error());
  auto link = make_link((*plugin)->abi(), {}, *plugin);
  if (!link) return fail(link.error());
  std::vector<Link> links;
  links.push_back(std::move(*link));
  return build_chain(std::move(links));
}

Result<const hookline_model*> load_model(const std::string& file) {
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail(ENOEXEC, ::dlerror());
  const auto* model = static_cast<const hookline_model*>(::dlsym(library, HOOKLINE_MODEL_SYMBOL));
  if (model == nullptr || model->magic != HOOKLINE_MODEL_MAGIC || model->size < sizeof(hookline_model))
    return fail(ENOEXEC, file + ": not a software model of this version");
  return model;
}

class Worker {
 public:
  Worker(int socket, std::unique_ptr<SoftwareDevice> device) : socket_(socket), device_(std::move(device)) {}

  // A request's answer; the error of an operation is part of it.
  bool answer(const Packet& request);

 private:
  template <typename T>
  bool reply(const Result<T>& result, uint64_t value = 0, std::span<const std::byte> bytes = {}) {
    if (result) return send_packet(socket_, {Message::reply, 0, 0, value}, bytes);
    return send_packet(socket_, {Message::reply, result.error().code},
                       std::as_bytes(std::span<const char>(result.error().text)));
  }
  bool reply_ok() { return send_packet(socket_, {Message::reply}); }

  int socket_;
  std::unique_ptr<SoftwareDevice> device_;
};

bool Worker::answer(const Packet& request) {
  const uint64_t argument = request.head.argument;
  switch (request.head.what) {
    case Message::read: {
      auto value = device_->read32(0, argument);
      return reply(value, value.value_or(0));
    }
    case Message::write:
      return reply(device_->write32(0, argument, static_cast<uint32_t>(request.head.value)));
    case Message::enable: {
      const uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
      return reply(device_->write(HOOKLINE_REGION_CONFIG, PCI_COMMAND, std::as_bytes(std::span(&command, 1))));
    }
    case Message::reset:
      device_->reset();
      return reply_ok();
    case Message::set_state:
      return reply(device_->set_state(static_cast<MigrationState>(argument)));
    case Message::precopy_sizes: {
      auto left = device_->precopy_info();
      return reply(left, left ? left->initial + left->dirty : 0);
    }
    case Message::read_state: {
      std::vector<std::byte> bytes(std::min<uint64_t>(argument, kMostBytes));
      auto got = device_->read_state(bytes);
      if (!got && got.error().code == ENOMSG) return reply_ok();
      return reply(got, 0, std::span(bytes).first(got.value_or(0)));
    }
    case Message::write_state:
      return reply(device_->write_state(request.bytes));
    case Message::receive:
      device_->receive(request.bytes);
      return true;
    default:
      return false;
  }
}

}  // namespace

int serve_model(int socket, uint32_t index, const ModelFiles& files, std::span<std::byte> memory) {
  const auto refuse = [socket](const Error& error) {
    send_packet(socket, {Message::reply, error.code}, std::as_bytes(std::span<const char>(error.text)));
    return 1;
  };
  auto model = load_model(files.model);
  if (!model) return refuse(model.error());
  auto chain = load_chain(files.plugin);
  if (!chain) return refuse(chain.error());
  auto device = SoftwareDevice::create(
      **model, std::move(*chain),
      {.index = index,
       .info = {.address = fmt::format("model {}", index), .vf_index = index},
       .memory = memory,
       .grant = SoftwareDevice::Grant::read,
       .on_interrupt = [socket](uint32_t vector) { send_packet(socket, {Message::interrupt, 0, 0, vector}); },
       .on_transmit = [socket](std::span<const std::byte> frame) { send_packet(socket, {Message::transmit}, frame); },
       .log =
           [](uint32_t level, std::string_view plugin, std::string_view text) {
             if (level <= HOOKLINE_LOG_WARNING) fmt::print(stderr, "{}: {}\n", plugin, text);
           }});
  if (!device) return refuse(device.error());
  Worker worker(socket, std::move(*device));
  send_packet(socket, {Message::reply});
  Packet request;
  while (receive_packet(socket, request) && worker.answer(request)) {
  }
  return 0;
}

}  // namespace hookline::demo
