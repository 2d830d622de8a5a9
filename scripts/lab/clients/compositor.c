// A Wayland compositor on libwayland-server that has a seat and nothing to see. Listens on the unix socket argv[1] until SIGTERM.
// Each keyboard that a client asks for gets a keymap of its own: a descriptor, whose bytes keymaps.rs knows.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <wayland-server.h>

enum { kKeymapSize = 40000 };

struct client {
  struct wl_listener gone;
  unsigned keymaps;
};

static unsigned char keymap_byte(unsigned number, unsigned at) { return (unsigned char)(at * 7 + at / 256 + number * 13); }

static int make_keymap(unsigned number) {
  static unsigned char bytes[kKeymapSize];
  for (unsigned at = 0; at < kKeymapSize; ++at) bytes[at] = keymap_byte(number, at);
  int fd = memfd_create("keymap", MFD_CLOEXEC);
  if (fd < 0 || write(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes) abort();
  return fd;
}

static void forget(struct wl_listener* gone, void* data) {
  (void)data;
  free(wl_container_of(gone, (struct client*)NULL, gone));
}

static struct client* remembered(struct wl_client* wayland) {
  struct wl_listener* found = wl_client_get_destroy_listener(wayland, forget);
  if (found) return wl_container_of(found, (struct client*)NULL, gone);
  struct client* made = calloc(1, sizeof *made);
  made->gone.notify = forget;
  wl_client_add_destroy_listener(wayland, &made->gone);
  return made;
}

static void get_keyboard(struct wl_client* wayland, struct wl_resource* seat, uint32_t id) {
  (void)seat;
  struct client* client = remembered(wayland);
  struct wl_resource* keyboard = wl_resource_create(wayland, &wl_keyboard_interface, 1, id);
  int fd = make_keymap(client->keymaps++);
  wl_keyboard_send_keymap(keyboard, WL_KEYBOARD_KEYMAP_FORMAT_XKB_V1, fd, kKeymapSize);
  close(fd);
}

static void refuse(struct wl_client* wayland, struct wl_resource* seat, uint32_t id) {
  (void)wayland, (void)id;
  wl_resource_post_error(seat, 0, "no such device");
}

static const struct wl_seat_interface kSeat = {.get_pointer = refuse, .get_keyboard = get_keyboard, .get_touch = refuse};

static void bind_seat(struct wl_client* wayland, void* data, uint32_t version, uint32_t id) {
  struct wl_resource* seat = wl_resource_create(wayland, &wl_seat_interface, (int)version, id);
  wl_resource_set_implementation(seat, &kSeat, data, NULL);
  wl_seat_send_capabilities(seat, WL_SEAT_CAPABILITY_KEYBOARD);
}

static int stop(int number, void* display) {
  (void)number;
  wl_display_terminate(display);
  return 0;
}

int main(int argc, char** argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, argv[1]);
  struct wl_display* display = wl_display_create();
  wl_event_loop_add_signal(wl_display_get_event_loop(display), SIGTERM, stop, display);
  wl_global_create(display, &wl_seat_interface, 1, NULL, bind_seat);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, (struct sockaddr*)&address, sizeof address) || listen(listener, 64) || wl_display_add_socket_fd(display, listener)) {
    perror(argv[1]);
    return 1;
  }
  wl_display_run(display);
  wl_display_destroy_clients(display);
  wl_display_destroy(display);
  return 0;
}
