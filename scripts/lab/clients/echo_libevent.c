// Sends back what it receives on the unix socket argv[2], with libevent's listener and buffered events over the method
// argv[1], until SIGTERM. A connection's end is answered by its end, after all of its bytes.
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum { kMostUnsent = 262144 };  // of a connection; then its bytes wait where they are

static size_t unsent(struct bufferevent* connection) { return evbuffer_get_length(bufferevent_get_output(connection)); }

static void on_sent(struct bufferevent* connection, void* data) {
  (void)data;
  bufferevent_enable(connection, EV_READ);
}

static void on_last_sent(struct bufferevent* connection, void* data) {
  (void)data;
  bufferevent_free(connection);
}

static void on_bytes(struct bufferevent* connection, void* data) {
  (void)data;
  bufferevent_write_buffer(connection, bufferevent_get_input(connection));
  if (unsent(connection) >= kMostUnsent) bufferevent_disable(connection, EV_READ);
}

static void on_end(struct bufferevent* connection, short what, void* data) {
  if ((what & BEV_EVENT_EOF) && unsent(connection) > 0)
    bufferevent_setcb(connection, NULL, on_last_sent, on_end, data);
  else
    bufferevent_free(connection);
}

static void on_connection(struct evconnlistener* listener, evutil_socket_t fd, struct sockaddr* address, int length,
                          void* data) {
  (void)address, (void)length, (void)data;
  struct bufferevent* connection = bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_setcb(connection, on_bytes, on_sent, on_end, NULL);
  bufferevent_enable(connection, EV_READ | EV_WRITE);
}

static void on_signal(evutil_socket_t number, short what, void* base) {
  (void)number, (void)what;
  event_base_loopbreak(base);
}

static struct event_base* base_with(const char* method) {
  struct event_config* config = event_config_new();
  const int batched = strcmp(method, "epoll-changelist") == 0;
  for (const char** other = event_get_supported_methods(); *other; ++other)
    if (strcmp(*other, batched ? "epoll" : method) != 0) event_config_avoid_method(config, *other);
  if (batched) event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
  struct event_base* base = event_base_new_with_config(config);
  event_config_free(config);
  return base;
}

int main(int count, char** words) {
  struct event_base* base = count == 3 ? base_with(words[1]) : NULL;
  if (!base) return fprintf(stderr, "echo_libevent METHOD SOCKET\n"), 2;
  printf("%s\n", event_base_get_method(base));
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", words[2]);
  struct evconnlistener* listener =
      evconnlistener_new_bind(base, on_connection, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 128,
                              (struct sockaddr*)&address, sizeof address);
  struct event* stop = evsignal_new(base, SIGTERM, on_signal, base);
  if (!listener || event_add(stop, NULL) != 0) return perror("echo_libevent"), 1;
  event_base_dispatch(base);
  event_free(stop);
  evconnlistener_free(listener);
  event_base_free(base);
  return 0;
}
