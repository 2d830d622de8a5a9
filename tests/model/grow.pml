// A ring that grows: each class of size has an area of its own, announced before the first byte in it is published. README.md: what is covered and why so.
// Either end is a family that may lose a member between any two stores; somebody else of it goes on (`goto again`, with the locals gone). The byte at position p
// is p + 1: a reader that looks for it in another area finds something else.

#ifndef BYTES
#define BYTES 4
#endif
#ifndef X_DEATHS
#define X_DEATHS 1
#endif
#ifndef Y_DEATHS
#define Y_DEATHS 1
#endif

#define LAST 2                      // classes 0 to LAST, of 1, 2 and 4 bytes
#define SIZE(k) (1 << (k))
#define AT(k, p) (SIZE(k) - 1 + (p) % SIZE(k))
#define NEVER 255

byte x_deaths = X_DEATHS, y_deaths = Y_DEATHS;
byte area[7];
// --- the channel
byte class_from[3] = NEVER, class_next, tail, head;
// --- the side of X
byte x_from[3] = NEVER, x_newest, announced, x_tail;
// --- the side of Y
byte y_from[3] = NEVER, y_newest, y_head, tail_seen;

#define X_DIES if :: x_deaths > 0 -> x_deaths--; goto again :: true fi
#define Y_DIES if :: y_deaths > 0 -> y_deaths--; goto again :: true fi
#define BEGIN (head > x_from[x_newest] -> head : x_from[x_newest])
#define FREE (x_tail - BEGIN < SIZE(x_newest))

init { d_step { x_from[0] = 0; y_from[0] = 0 }; atomic { run x(); run y() } }

// ---------------------------------------------------------------- the end X, always under its write lock

inline announce() {
#ifdef MUTANT_NOTED_BEFORE_ANNOUNCED
  atomic { announced = x_newest; X_DIES };
#endif
  atomic { class_from[1] = x_from[1]; X_DIES };
  if :: x_newest > 1 -> atomic { class_from[2] = x_from[2]; X_DIES } :: else fi;
  atomic { class_next = x_newest; X_DIES };
  announced = x_newest
}

proctype x() {
  byte k;
again:
  k = 0;
  tail = x_tail;                                             // mend(): what was committed is published
  do
  :: x_tail < BYTES && x_newest < LAST ->                    // grow(): the next class, or one further
     k = x_newest + 1;
     if
     :: k < LAST -> atomic { x_from[k] = NEVER; X_DIES }; k++
     :: true
     fi;
#ifdef MUTANT_NEWEST_BEFORE_FROM
     atomic { x_newest = k; X_DIES }; atomic { x_from[k] = x_tail; X_DIES }
#else
     atomic { x_from[k] = x_tail; X_DIES }; atomic { x_newest = k; X_DIES }
#endif
  :: x_tail < BYTES && FREE ->
#ifndef MUTANT_TAIL_BEFORE_CLASS
     if :: announced != x_newest -> announce() :: else fi;
#endif
     atomic { area[AT(x_newest, x_tail)] = x_tail + 1; X_DIES };
     atomic { x_tail++; X_DIES };
     atomic { tail = x_tail; X_DIES };
#ifdef MUTANT_TAIL_BEFORE_CLASS
     if :: announced != x_newest -> announce() :: else fi;
#endif
  :: x_tail == BYTES -> break
  od
}

// ---------------------------------------------------------------- the end Y, always under its read lock

proctype y() {
  byte t, k, f, learned;
again:
  true;
  d_step { t = 0; k = 0; f = 0; learned = 0 };
  head = y_head;                                             // republish_head()
  do
  :: y_head == tail_seen && y_head < BYTES ->                // refresh_tail()
#ifdef MUTANT_CLASS_BEFORE_TAIL
     learned = class_next;
#endif
     tail > tail_seen;
     t = tail;
#ifndef MUTANT_CLASS_BEFORE_TAIL
     learned = class_next;
#endif
     k = y_newest + 1;
     do                                                      // learn_classes()
     :: k <= learned ->
        f = class_from[k];
        if
        :: f == NEVER && k < learned -> k++
        :: f > t && (f != NEVER || k == learned) -> break
        :: f <= t ->
           if :: k == 2 && y_newest == 0 -> atomic { y_from[1] = NEVER; Y_DIES } :: else fi;
           atomic { y_from[k] = f; Y_DIES };
           atomic { y_newest = k; Y_DIES };
           k++
        fi
     :: k > learned -> break
     od;
     atomic { tail_seen = t; Y_DIES };
     d_step { t = 0; k = 0; f = 0; learned = 0 }
  :: y_head < tail_seen ->
     d_step {
       k = y_newest;
       do :: y_from[k] > y_head -> k-- :: else -> break od;
       f = area[AT(k, y_head)];
       assert(f == y_head + 1);
       k = 0; f = 0
     };
     atomic { y_head++; Y_DIES };
     atomic { head = y_head; Y_DIES }
  :: y_head == BYTES -> break
  od
}

active proctype monitor() {
  timeout -> assert(y_head == BYTES)
}
