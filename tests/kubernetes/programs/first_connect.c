// SPDX-License-Identifier: Apache-2.0
// first_connect A.B.C.D PORT: a program without a C library whose first system calls are socket()
// and connect(). Then it looks at its own address, asks for / by HTTP, prints the answer and ends:
// 0 if there was one and its own address is not loopback's, 1 with the errno if not.
#include <linux/in.h>
#include <sys/syscall.h>

static long call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c)
                   : "rcx", "r11", "memory");
  return result;
}

static unsigned number(const char** text) {
  unsigned value = 0;
  while (**text >= '0' && **text <= '9') {
    value = value * 10 + (unsigned)(*(*text)++ - '0');
  }
  return value;
}

static __attribute__((noreturn)) void end(long status) {
  for (;;) {
    call(SYS_exit_group, status, 0, 0);
  }
}

static void say(const char* text, long size) {
  call(SYS_write, 1, (long)text, size);
}

static __attribute__((noreturn)) void failed(const char* what, long size, long error) {
  char digits[8];
  int first = sizeof(digits);
  digits[--first] = '\n';
  for (error = -error; error > 0 && first > 0; error /= 10) {
    digits[--first] = (char)('0' + error % 10);
  }
  say(what, size);
  say(digits + first, (long)sizeof(digits) - first);
  end(1);
}

__attribute__((used, noreturn)) void first_connect(const long* stack) {
  const char* const* arguments = (const char* const*)(stack + 1);
  static const char request[] = "GET / HTTP/1.0\r\n\r\n";
  static char answer[4096];
  struct sockaddr_in to = {.sin_family = 2};
  struct sockaddr_in own = {.sin_family = 2};
  unsigned char* address = (unsigned char*)&to.sin_addr;
  unsigned char* port = (unsigned char*)&to.sin_port;
  const char* text = arguments[1];
  long socket;
  long size;
  unsigned value;
  for (int i = 0; i < 4; ++i, ++text) {
    address[i] = (unsigned char)number(&text);
  }
  text = arguments[2];
  value = number(&text);
  port[0] = (unsigned char)(value >> 8);
  port[1] = (unsigned char)value;
  socket = call(SYS_socket, 2, 1, 0);
  size = call(SYS_connect, socket, (long)&to, sizeof(to));
  if (size < 0) {
    failed("connect: errno ", 15, size);
  }
  size = sizeof(own);
  call(SYS_getsockname, socket, (long)&own, (long)&size);
  if (*(unsigned char*)&own.sin_addr == 127) {
    failed("getsockname: loopback, errno ", 29, 0);
  }
  call(SYS_write, socket, (long)request, sizeof(request) - 1);
  size = call(SYS_read, socket, (long)answer, sizeof(answer));
  if (size <= 0) {
    failed("read: errno ", 12, size);
  }
  say(answer, size);
  end(0);
}

__asm__(
    ".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call "
    "first_connect\n");
