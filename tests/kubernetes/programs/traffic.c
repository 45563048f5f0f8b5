// SPDX-License-Identifier: Apache-2.0
// traffic A.B.C.D PORT WORKERS PAUSE_MS HELD HELD_REQUESTS: asks an HTTP server again and again.
// WORKERS threads make a connection for each request; HELD threads keep theirs for HELD_REQUESTS
// (0: for ever), one each 100 ms. Prints what happened so far each second:
//   asked=N connect_failed=N answer_failed=N held=N held_broken=N last=TEXT
// A failed connect() is never tried again behind the counter's back; a held connection that broke
// is replaced. Held connections do not block, as those of Go, Node and asyncio: only such ones may
// skip TCP.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_in server;
static useconds_t pause_us;
static unsigned long held_requests;
static atomic_ulong asked, connect_failed, answer_failed, held, held_broken;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char last[160] = "none";

static void note(const char* what) {
  int error = errno;
  pthread_mutex_lock(&lock);
  snprintf(last, sizeof(last), "%s:%s", what, strerrorname_np(error));
  pthread_mutex_unlock(&lock);
}

static int connected(void) {
  struct timeval limit = {.tv_sec = 10};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (connect(fd, (struct sockaddr*)&server, sizeof(server)) != 0) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

// One request and its answer: 0, or -1 with errno (EPIPE: the server ended the connection without
// one).
static int ask(int fd) {
  static const char request[] = "GET / HTTP/1.1\r\nHost: traffic\r\n\r\n";
  char answer[2048];
  ssize_t size = 0;
  if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1) {
    return -1;
  }
  for (ssize_t more = 0; size < (ssize_t)sizeof(answer) - 1; size += more) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    if (poll(&readable, 1, 10000) != 1) {
      errno = ETIMEDOUT;
      return -1;
    }
    more = recv(fd, answer + size, sizeof(answer) - 1 - (size_t)size, 0);
    if (more <= 0) {
      errno = more == 0 ? EPIPE : errno;
      return -1;
    }
    answer[size + more] = '\0';
    char* body = strstr(answer, "\r\n\r\n");
    if (body != NULL && strchr(body + 4, '\n') != NULL) {  // the answers of sidetrack-probe end so
      return strncmp(answer, "HTTP/1.1 200", 12) == 0 ? 0 : -1;
    }
  }
  errno = EMSGSIZE;
  return -1;
}

static void* new_each_time(void* unused) {
  (void)unused;
  for (;;) {
    int fd = connected();
    if (fd < 0) {
      note("connect");
      atomic_fetch_add(&connect_failed, 1);
    } else {
      if (ask(fd) != 0) {
        note("answer");
        atomic_fetch_add(&answer_failed, 1);
      }
      close(fd);
    }
    atomic_fetch_add(&asked, 1);
    usleep(pause_us);
  }
  return NULL;
}

static void* one_for_all(void* unused) {
  (void)unused;
  for (;;) {
    int fd = connected();
    if (fd < 0) {
      note("held-connect");
      atomic_fetch_add(&connect_failed, 1);
      usleep(100000);
      continue;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    int broken = 0;
    for (unsigned long i = 0; !broken && (held_requests == 0 || i < held_requests); ++i) {
      if (ask(fd) == 0) {
        atomic_fetch_add(&held, 1);
        usleep(100000);
      } else {
        note("held");
        atomic_fetch_add(&held_broken, 1);
        broken = 1;
      }
    }
    close(fd);
  }
  return NULL;
}

int main(int argc, char** argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: traffic A.B.C.D PORT WORKERS PAUSE_MS HELD HELD_REQUESTS\n");
    return 2;
  }
  server.sin_family = AF_INET;
  inet_pton(AF_INET, argv[1], &server.sin_addr);
  server.sin_port = htons((unsigned short)atoi(argv[2]));
  pause_us = (useconds_t)atoi(argv[4]) * 1000;
  held_requests = strtoul(argv[6], NULL, 10);
  for (int i = 0; i < atoi(argv[3]) + atoi(argv[5]); ++i) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, i < atoi(argv[3]) ? new_each_time : one_for_all, NULL) != 0) {
      return 1;
    }
  }
  for (;;) {
    sleep(1);
    pthread_mutex_lock(&lock);
    printf("asked=%lu connect_failed=%lu answer_failed=%lu held=%lu held_broken=%lu last=%s\n",
           atomic_load(&asked), atomic_load(&connect_failed), atomic_load(&answer_failed),
           atomic_load(&held), atomic_load(&held_broken), last);
    pthread_mutex_unlock(&lock);
    fflush(stdout);
  }
}
