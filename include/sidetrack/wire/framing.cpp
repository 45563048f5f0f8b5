// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/wire/framing.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace sidetrack::wire {
namespace {

constexpr std::size_t kFramesPerRead = 64;

// Room for the most descriptors of a frame, aligned as the kernel wants it.
union ControlBuffer {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int) * kMaxFrameFds)];
};

std::string framed(const std::string& body) {
  const auto size = static_cast<std::uint32_t>(body.size());
  std::string out;
  out.reserve(kFrameHeaderBytes + body.size());
  for (const unsigned shift : {24U, 16U, 8U, 0U}) {
    out.push_back(static_cast<char>((size >> shift) & 0xffU));
  }
  out += body;
  return out;
}

void attach_fds(msghdr& message, ControlBuffer& control, const std::vector<UniqueFd>& fds) {
  const std::size_t bytes = sizeof(int) * fds.size();
  message.msg_control = control.bytes;
  message.msg_controllen = CMSG_SPACE(bytes);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(bytes);
  unsigned char* out = CMSG_DATA(header);
  for (const UniqueFd& fd : fds) {
    const int number = fd.get();
    std::memcpy(out, &number, sizeof number);
    out += sizeof number;
  }
}

}  // namespace

bool FrameReader::complete() const {
  return header_used_ == kFrameHeaderBytes && body_used_ == current_.body.size();
}

// The kernel has installed what it delivered: all of it needs an owner before any of it can be
// refused.
Result<void> FrameReader::adopt_fds(void* message_header) {
  auto* const message = static_cast<msghdr*>(message_header);
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(header) + i * sizeof number, sizeof number);
      current_.fds.emplace_back(number);
    }
  }
  if ((message->msg_flags & MSG_CTRUNC) != 0) {
    return make_error(ErrorCode::kInvalid,
                      "frame: descriptors were lost: more than 8, or no files left");
  }
  if (current_.fds.size() > kMaxFrameFds) {
    return make_error(ErrorCode::kInvalid, "frame: more than 8 descriptors");
  }
  return {};
}

Result<void> FrameReader::finish_header() {
  std::size_t size = 0;
  for (const unsigned char byte : header_) {
    size = (size << 8U) | byte;
  }
  if (size > kMaxFrameBytes) {
    return make_error(ErrorCode::kInvalid,
                      "frame: length " + std::to_string(size) + " is over 1 MiB");
  }
  current_.body.resize(size);
  return {};
}

// One recvmsg, never past the end of the current frame: so descriptors always belong to the frame
// being read.
Result<FrameReader::Step> FrameReader::receive(int socket) {
  const bool in_header = header_used_ < kFrameHeaderBytes;
  iovec part{};
  if (in_header) {
    part = {header_.data() + header_used_, kFrameHeaderBytes - header_used_};
  } else {
    part = {current_.body.data() + body_used_, current_.body.size() - body_used_};
  }
  ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    const int saved = errno;
    if (saved == EAGAIN || saved == EWOULDBLOCK) {
      return Step::kWouldBlock;
    }
    return errno_error("receive frame", saved);
  }
  ST_TRY(adopt_fds(&message));
  if (got == 0) {
    return Step::kClosed;
  }
  (in_header ? header_used_ : body_used_) += static_cast<std::size_t>(got);
  if (in_header && header_used_ == kFrameHeaderBytes) {
    ST_TRY(finish_header());
  }
  return Step::kProgress;
}

Result<Received> FrameReader::read(int socket) {
  Received received;
  while (!failed_ && received.frames.size() < kFramesPerRead) {
    auto step = receive(socket);
    if (!step) {
      failed_ = step.error();
      current_ = Frame{};
      break;
    }
    if (*step == Step::kWouldBlock) {
      return received;
    }
    if (*step == Step::kClosed) {
      received.closed = true;
      return received;
    }
    if (complete()) {
      received.frames.push_back(std::exchange(current_, Frame{}));
      header_used_ = 0;
      body_used_ = 0;
    }
  }
  if (failed_ && received.frames.empty()) {
    return *failed_;
  }
  return received;
}

Result<void> FrameWriter::push(std::string body, std::vector<UniqueFd> fds) {
  if (body.size() > kMaxFrameBytes) {
    return make_error(ErrorCode::kInvalid,
                      "frame: body of " + std::to_string(body.size()) + " bytes is over 1 MiB");
  }
  if (fds.size() > kMaxFrameFds) {
    return make_error(ErrorCode::kInvalid, "frame: more than 8 descriptors");
  }
  const std::size_t size = kFrameHeaderBytes + body.size();
  if (queued_bytes_ + size > limit_bytes_) {
    return make_error(ErrorCode::kFull, "frame queue: the peer reads too slowly");
  }
  queue_.push_back(Frame{framed(body), std::move(fds)});
  queued_bytes_ += size;
  return {};
}

Result<void> FrameWriter::flush(int socket) {
  while (!queue_.empty()) {
    Frame& frame = queue_.front();
    iovec part{frame.body.data() + front_sent_, frame.body.size() - front_sent_};
    ControlBuffer control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!frame.fds.empty()) {
      attach_fds(message, control, frame.fds);
    }
    const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      const int saved = errno;
      if (saved == EINTR) {
        continue;
      }
      if (saved == EAGAIN || saved == EWOULDBLOCK) {
        return {};
      }
      return errno_error("send frame", saved);
    }
    frame.fds.clear();
    front_sent_ += static_cast<std::size_t>(sent);
    queued_bytes_ -= static_cast<std::size_t>(sent);
    if (front_sent_ == frame.body.size()) {
      queue_.pop_front();
      front_sent_ = 0;
    }
  }
  return {};
}

}  // namespace sidetrack::wire
