// A family that loses a member at any step of counting, sending, taking a bell, or of a down-fence; somebody else of it goes on. README.md: what is covered and why so.
// X rings BELLS times, demotes, then sends data; Y takes bells, passes the fence, then reads. Data is numbered 1, 2, 3...; a bell bears its own number, BELL + n.
// Y goes by nothing but numbers: where it looks at a byte to see whether it is a bell, a data byte could be like any, so that must not happen.
// Who goes on after a death is the same proctype: `goto mend`, with the locals gone and the lock taken over.

#ifndef BELLS
#define BELLS 2
#endif
#ifndef DATA
#define DATA 2
#endif
#ifndef X_DEATHS
#define X_DEATHS 1
#endif
#ifndef Y_DEATHS
#define Y_DEATHS 1
#endif

#define BELL 100
#define RING 1
#define AGAIN 2
#define MOST 14

byte x_deaths = X_DEATHS, y_deaths = Y_DEATHS;
// --- the kernel's queue, by absolute position, and the offset that it keeps for peeks: how much was taken since it was set
byte queue[MOST], first, end_;
bool offset_set;
byte offset;
// --- the channel
byte stage = RING, rung, final;     // rung: bells_rung as published
bool final_taken;                   // kBellsTaken, in the word of `final`
// --- the side of X
byte out_flow = RING, x_rung, x_sent, fence_bell, sent;
bool falling;
// --- the side of Y
byte in_flow = RING, taken, last_bell, last_bells, next = 1;
bool taking;

// --- Y leaves at any moment, with nothing unread (see retreat.pml)
bool frozen, allowed;               // ask: frozen, then put_back
bool writing, x_dead;               // nobody waits for ever for a section whose owner has died

#define SOME (first < end_)
#define X_DIES if :: x_deaths > 0 -> x_deaths--; x_dead = true; goto mend :: true fi
#define Y_DIES if :: y_deaths > 0 -> y_deaths--; goto again :: true fi

inline put(v) { d_step { assert(end_ < MOST); queue[end_] = v; end_++ } }

// ---------------------------------------------------------------- the end X, always under its write lock

// Not in a frozen ring.
inline begin_writing() {
  writing = true;
  if :: frozen -> writing = false; goto call :: else fi
}

active proctype x() {
  byte w;
call:
  do
  :: out_flow == RING && !frozen && x_rung < BELLS ->
     begin_writing();
     atomic { x_rung++; X_DIES };
     atomic { rung = x_rung; X_DIES };
     atomic { put(BELL + x_sent + 1); X_DIES };
     x_sent++;
     writing = false
  :: out_flow == RING && !frozen ->
     begin_writing();
     atomic { fence_bell = x_rung + 1; X_DIES };
     atomic { falling = true; X_DIES };
     atomic { final = fence_bell; X_DIES };
     atomic { stage = AGAIN; X_DIES };
     atomic { out_flow = AGAIN; X_DIES };
     atomic { x_rung++; X_DIES };
     atomic { rung = x_rung; X_DIES };
     atomic { put(BELL + x_sent + 1); X_DIES };
     atomic { x_sent++; X_DIES };
     falling = false;
     writing = false
  :: out_flow == RING && allowed -> out_flow = AGAIN          // nothing to put back
  :: out_flow == AGAIN && sent < DATA -> d_step { sent++; queue[end_] = sent; end_++ }
  :: out_flow == AGAIN && sent == DATA -> break
  od;
  goto end;
mend:
  atomic { writing = true; x_dead = false };
#ifndef MUTANT_FENCE_NOT_COMPLETED
  if
#ifndef MUTANT_REPEATED_BEFORE_Y_DECIDES
  :: falling && stage == AGAIN && frozen && !allowed -> writing = false; allowed; goto mend
  :: falling && stage == AGAIN && (!frozen || allowed) ->
#else
  :: falling && stage == AGAIN ->
#endif
     w = final;
     if
     :: final_taken
     :: !final_taken ->
        fence_bell = w; x_rung = w; atomic { x_sent = w; X_DIES };
        d_step {                                             // compare-exchange
#ifdef MUTANT_REPEATED_UNASKED
          final = w + 1; w = 0
#else
          if
          :: !final_taken && final == w -> final = w + 1; w = 0
          :: else
          fi
#endif
        };
        X_DIES;
        if
        :: w == 0 ->
           atomic { x_rung++; X_DIES };
           atomic { rung = x_rung; X_DIES };
           atomic { put(BELL + x_sent + 1); X_DIES }
        :: else
        fi
     fi;
     x_sent = x_rung;
     out_flow = AGAIN
  :: !(falling && stage == AGAIN)
  fi;
#else
  if :: falling && stage == AGAIN -> out_flow = AGAIN; x_sent = x_rung :: else fi;
#endif
  atomic { falling = false; X_DIES };
  if
  :: x_sent < x_rung && out_flow == RING && frozen -> x_sent = x_rung
  :: x_sent < x_rung && out_flow == RING && !frozen ->
#ifdef MUTANT_BELL_NOT_REPEATED
     x_sent = x_rung
#else
     atomic { x_rung++; X_DIES };                                       // and one more, so that a repetition is never the last
     atomic { rung = x_rung; X_DIES };
     do
     :: x_sent < x_rung -> atomic { put(BELL + x_sent + 1); X_DIES }; atomic { x_sent++; X_DIES }
     :: else -> break
     od
#endif
  :: else
  fi;
  writing = false;
  goto call;
end:
  skip
}

// ---------------------------------------------------------------- the end Y, always under its read lock

// One recv of `most` bytes at most: the kernel's two counts move together.
inline receive(most) {
  d_step {
    i = 0; n = taken;
    do
    :: i < most && SOME ->
       assert(queue[first] > BELL);
       if :: queue[first] - BELL > n -> n = queue[first] - BELL :: else fi;
       queue[first] = 0; first++; i++;
       if :: offset_set -> offset++ :: else fi
    :: else -> break
    od
  }
}

#ifdef LEAVES
// The last bell is there, or was taken: it is found as at any down-fence. Else nobody waits for it: all bells that are there, and no others.
inline leave() {
  frozen = true;
  !writing || x_dead;
  d_step {
    k = first;
    do
    :: k < end_ && queue[k] != BELL + final -> k++
    :: else -> break
    od;
    s = (stage == AGAIN && (taken >= final || k < end_) -> 1 : 0);
    k = 0
  };
  if
  :: s == 1 -> skip
  :: else ->
     receive(MOST);
     taken = n;
     final_taken = true;
     in_flow = AGAIN
  fi;
  allowed = true
}
#endif

active proctype y() {
  byte until, i, n, k, s;
  bool begun;
again:
  true;
  d_step { i = 0; n = 0; k = 0; begun = false; until = 0; s = 0 };
  do
#ifdef LEAVES
  :: in_flow == RING && !frozen -> leave()
#endif
  :: in_flow == RING ->
     until = rung;
     s = stage;
     if
     :: s == RING && taken < until ->
        (SOME || stage != RING);                             // (a recv that finds nothing changes nothing)
#ifndef MUTANT_TAKEN_BLINDLY
        if
        :: taking ->                                         // no more than are seen to be due
           d_step {
             k = 0; n = taken;
             do
             :: first + k < end_ && queue[first + k] - BELL <= until -> assert(queue[first + k] > BELL); k++
             :: else -> break
             od
           }
        :: else -> k = until - taken
        fi;
#else
        k = until - taken;
#endif
        atomic { taking = true; Y_DIES };
        receive(k);
        assert(n <= until);                                  // a later bell is for a later look
        Y_DIES;
        atomic { taken = n; Y_DIES };
        if :: i > 0 -> taking = false :: else fi
     :: s == RING && taken >= until -> (rung != until || stage != RING)
     :: s == AGAIN ->
        begun = (last_bells != 0);
        if
        :: !begun ->
           last_bell = final;
           k = 0;
           if
           :: taken >= last_bell -> s = 0
           :: taken < last_bell ->
              d_step {                                       // MSG_PEEK
                do
                :: s == AGAIN && first + k < end_ ->
                   assert(queue[first + k] > BELL);          // else it looks at data
                   if
                   :: queue[first + k] <= BELL + last_bell -> k++
                   :: else -> s = 0                          // another one is the last meanwhile
                   fi;
                   if
                   :: s == AGAIN && queue[first + k - 1] == BELL + last_bell -> s = 0
                   :: else
                   fi
                :: else -> break
                od
              }
           fi;
           if
           :: s == AGAIN && k > 0 -> atomic { taking = true; Y_DIES }; atomic { receive(k); Y_DIES }; taken = n; taking = false; goto again
           :: s == AGAIN && k == 0 -> (SOME || final != last_bell); goto again
           :: else
           fi;
#ifdef MUTANT_BELLS_COUNTED
           k = last_bell - taken;
#endif
           Y_DIES;
           last_bells = k + 1
        :: begun
        fi;
        Y_DIES;
        d_step {                                             // compare-exchange
          if
          :: final_taken -> s = 1
          :: !final_taken && final == last_bell -> final_taken = true; s = 1
          :: else -> last_bells = 0; s = 0
          fi
        };
        if :: s == 0 -> goto again :: else fi;
        Y_DIES;
#ifdef MUTANT_NO_OFFSET
        offset_set = true; offset = 0;
#else
        d_step { if :: !(begun && offset_set) -> offset_set = true; offset = 0 :: else fi };
#endif
        Y_DIES;
        k = (last_bells - 1 > offset -> last_bells - 1 - offset : 0);
        atomic { receive(k); Y_DIES };
        atomic { taken = last_bell; Y_DIES };
        taking = false; atomic { last_bells = 1; Y_DIES };
        atomic { offset_set = false; Y_DIES };
        in_flow = AGAIN
     fi
  :: in_flow == AGAIN && SOME -> d_step { assert(queue[first] == next); next++; queue[first] = 0; first++ }
  :: in_flow == AGAIN && next > DATA -> break
  od
}

active proctype monitor() {
  timeout -> assert(next == DATA + 1)
}
