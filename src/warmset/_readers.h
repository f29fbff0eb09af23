/*
What the compiled core needs where there is no interpreter lock: readers that take no lock.

    Table, one for a registry
      stripes[seat] --> Stripe of one thread: turn, stamp, last, hits, touched, holds
                          touched --> Trace --> Trace   (in the slots that were used since the
                                                         ring was last put in order)

A thread has a seat, a small number that is its own until it ends, and in each registry that it uses
a stripe, which it alone writes to: so hits of several threads share no cache line but those of what
they find. Threads beyond the last seat have none, and take the lock of the registry.

Readers and who waits for them
    A look-up without a lock reads borrowed pointers. It does so between `warmset_enter`, which makes
    the turn of its stripe odd, and `warmset_leave`, which makes it even; in between is plain C that
    cannot let go of its thread, a dozen stores long. Who takes something out of a reader's sight
    does that first, and then waits in `warmset_wait` until each reader that was inside has left:
    from there on nobody has the old pointer without a reference of his own. That is read-copy-update
    as P. E. McKenney and J. D. Slingwine describe it, with the waiting made cheap by its rarity.
    The exchange in `enter` and the fence in `wait` are what orders the two: either the reader sees
    the change, or the one who waits sees the reader.

On an interpreter with a lock nothing of this is called; the types and the plain versions of the
operations are there so that the core reads the same.
*/

#ifndef WARMSET_READERS_H
#define WARMSET_READERS_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
  #define WARMSET_FREE_THREADED 1
  #if defined(_WIN32)
    #include <windows.h>
    #define WARMSET_THREAD_LOCAL __declspec(thread)
    #define warmset_yield() SwitchToThread()
  #else
    #include <pthread.h>
    #include <sched.h>
    #define WARMSET_THREAD_LOCAL _Thread_local
    #define warmset_yield() sched_yield()
  #endif
  #if defined(__x86_64__) || defined(_M_X64)
    #include <immintrin.h>
    #define warmset_pause() _mm_pause()
  #else
    #define warmset_pause() ((void)0)
  #endif
  #define warmset_load_pointer(at) _Py_atomic_load_ptr_acquire(at)
  #define warmset_store_pointer(at, value) _Py_atomic_store_ptr_release(at, value)
  #define warmset_exchange_pointer(at, value) _Py_atomic_exchange_ptr(at, value)
  #define warmset_replace_pointer(at, old, value) _Py_atomic_compare_exchange_ptr(at, old, value)
  #define warmset_load_byte(at) _Py_atomic_load_uint8(at)
  #define warmset_store_byte(at, value) _Py_atomic_store_uint8(at, value)
  #define warmset_exchange_byte(at, value) _Py_atomic_exchange_uint8(at, value)
  #define warmset_load_number(at) _Py_atomic_load_uint64_relaxed((uint64_t *)(at))
  #define warmset_store_number(at, value) _Py_atomic_store_uint64_relaxed(at, value)
  #define warmset_add_number(at, value) \
      ((void)_Py_atomic_add_uint64((uint64_t *)(at), (uint64_t)(int64_t)(value)))
  #define warmset_add_holds(at, value) ((void)_Py_atomic_add_uint32(at, (uint32_t)(value)))
  #define warmset_load_holds(at) _Py_atomic_load_uint32_relaxed(at)
  #define warmset_load_size(at) _Py_atomic_load_ssize(at)
  #define warmset_add_size(at, value) ((void)_Py_atomic_add_ssize(at, value))
  #define warmset_swap_state(at, old, value) warmset_swap_int(at, old, value)
  #define warmset_fence() _Py_atomic_fence_seq_cst()
  #define warmset_fence_after_load() _Py_atomic_fence_acquire()
#else
  #define WARMSET_FREE_THREADED 0
  #define WARMSET_THREAD_LOCAL
  #define warmset_yield() ((void)0)
  #define warmset_pause() ((void)0)
  #define warmset_load_pointer(at) (*(at))
  #define warmset_store_pointer(at, value) ((void)(*(at) = (value)))
  #define warmset_exchange_pointer(at, value) (*(at) = (value))
  #define warmset_replace_pointer(at, old, value) (*(at) = (value), (void)(old), 1)
  #define warmset_load_byte(at) (*(at))
  #define warmset_store_byte(at, value) ((void)(*(at) = (value)))
  #define warmset_exchange_byte(at, value) (*(at) = (value))
  #define warmset_load_number(at) (*(at))
  #define warmset_store_number(at, value) ((void)(*(at) = (value)))
  #define warmset_add_number(at, value) ((void)(*(at) += (value)))
  #define warmset_add_holds(at, value) ((void)(*(at) += (value)))
  #define warmset_load_holds(at) (*(at))
  #define warmset_load_size(at) (*(at))
  #define warmset_add_size(at, value) ((void)(*(at) += (value)))
  #define warmset_swap_state(at, old, value) warmset_swap_int(at, old, value)
  #define warmset_fence() ((void)0)
  #define warmset_fence_after_load() ((void)0)
#endif

static inline double warmset_load_time(double *at) {
#if WARMSET_FREE_THREADED
    uint64_t bits = _Py_atomic_load_uint64_relaxed((uint64_t *)at);
    double time;
    memcpy(&time, &bits, sizeof time);
    return time;
#else
    return *at;
#endif
}

static inline void warmset_store_time(double *at, double time) {
#if WARMSET_FREE_THREADED
    uint64_t bits;
    memcpy(&bits, &time, sizeof bits);
    _Py_atomic_store_uint64_relaxed((uint64_t *)at, bits);
#else
    *at = time;
#endif
}

/* A new reference, handed on as it is. */
static inline PyObject *warmset_owned(PyObject *reference) { return reference; }

/* A new reference to what a dict has for a key, None if it has nothing; NULL with an error set. */
static inline PyObject *warmset_item(PyObject *dict, PyObject *key) {
    PyObject *found = NULL;
#if WARMSET_FREE_THREADED
    if (PyDict_GetItemRef(dict, key, &found) < 0) return NULL;
    return found != NULL ? found : Py_None; /* that is immortal there */
#else
    found = PyDict_GetItemWithError(dict, key);
    if (found == NULL) {
        if (PyErr_Occurred()) return NULL;
        found = Py_None;
    }
    Py_INCREF(found);
    return found;
#endif
}

/* A new reference to the slot of a name, an exact str; NULL if there is none. No lock is waited for. */
static inline PyObject *warmset_slot_named(PyObject *slots, PyObject *name) {
    PyObject *slot = NULL;
#if WARMSET_FREE_THREADED
    if (PyDict_GetItemRef(slots, name, &slot) < 0) PyErr_Clear();
#else
    (void)slots, (void)name;
#endif
    return slot;
}

/* -- reference counts -------------------------------------------------------------------------- */

/*
Let a reference of this thread's be counted where all threads count theirs.

Where there is no interpreter lock, an object has two counts: of the thread that made it, and of all
others together. When the first comes down to nothing, the interpreter merges the two for ever, and
the one that is left can be read in one moment. So what a registry keeps is counted with the others:
then the maker's count comes down as soon as the maker itself has no reference any more.
*/
static inline void warmset_share_reference(PyObject *one) {
#if WARMSET_FREE_THREADED
    if (_Py_IsImmortal(one)) return;
    (void)_Py_atomic_add_ssize(&one->ob_ref_shared, (Py_ssize_t)1 << _Py_REF_SHARED_SHIFT);
    Py_DECREF(one); /* it is not the last: nothing dies here */
#else
    (void)one;
#endif
}

/* Whether the caller's is the only reference; 0 where it may be, but that is not to be known. */
static inline int warmset_is_alone(PyObject *one) {
#if WARMSET_FREE_THREADED
    Py_ssize_t shared = _Py_atomic_load_ssize(&one->ob_ref_shared);
    Py_ssize_t counted = shared >> _Py_REF_SHARED_SHIFT;
    if ((shared & _Py_REF_SHARED_FLAG_MASK) == _Py_REF_MERGED) return counted == 1;
    if (_Py_atomic_load_uintptr_relaxed(&one->ob_tid) != _Py_ThreadId()) return 0;
    /* Its maker is this thread, which changes nothing meanwhile. */
    return counted + _Py_atomic_load_uint32_relaxed(&one->ob_ref_local) == 1;
#else
    return Py_REFCNT(one) == 1;
#endif
}

/* -- what the threads write to ---------------------------------------------------------------- */

/* The part of a slot that readers without a lock write to, next to its times. */
typedef struct warmset_trace {
    struct warmset_trace *next; /* of those that were touched by the same thread */
    struct warmset_table *table;
    uint64_t stamp;  /* orders uses within one reading of the clock */
    int guard;       /* held for the length of a copy of one of its pointers */
    uint8_t touched; /* whether it stands in a list of touched ones */
    uint8_t open;    /* whether readers may take what is in the slot */
} warmset_trace;

#if WARMSET_FREE_THREADED
typedef warmset_trace warmset_trace_place;
typedef PyMutex warmset_mutex;
  #define warmset_mutex_lock(mutex) PyMutex_Lock(mutex)
  #define warmset_mutex_unlock(mutex) PyMutex_Unlock(mutex)
#else
typedef char warmset_trace_place; /* nothing reads it, and a slot is not the bigger for it */
typedef char warmset_mutex;
  #define warmset_mutex_lock(mutex) ((void)(mutex))
  #define warmset_mutex_unlock(mutex) ((void)(mutex))
#endif
  #define warmset_mutex_reset(mutex) memset(mutex, 0, sizeof *(mutex))

typedef struct warmset_hold { /* on the C stack of a running call, or in a lease */
    struct warmset_hold *newer;
    struct warmset_hold *older;
    PyObject *slot;
    unsigned long thread;
    double since;
#if WARMSET_FREE_THREADED
    struct warmset_stripe *stripe; /* whose ring it is in */
#endif
} warmset_hold;

typedef struct warmset_stripe {
    uint64_t turn;          /* odd while its thread reads */
    uint64_t stamp;         /* the last that it gave */
    uint64_t hits;          /* all of its thread */
    uint64_t before;        /* of the hits, those before its uses of `last` */
    void *last;             /* the slot that its thread used last, borrowed */
    warmset_trace *touched; /* slots that it was the first to use since the ring was put in order */
    warmset_hold holds;     /* the root of the ring of its holds */
    int lock;               /* of that ring: a lease may be left by another thread */
    void *memory;           /* what to free */
} warmset_stripe;

enum { WARMSET_SEATS = 128, WARMSET_LINE = 128 };

typedef struct warmset_table {
    warmset_stripe *stripes[WARMSET_SEATS]; /* by seat; at 0 those without one note their holds */
    Py_ssize_t used;                        /* no stripe stands at this place or beyond */
    Py_ssize_t owners;                      /* the registry, and its slots */
} warmset_table;

/* -- seats -------------------------------------------------------------------------------------- */

static WARMSET_THREAD_LOCAL int warmset_seat; /* 0: none */

#if WARMSET_FREE_THREADED
static uint64_t warmset_seats[WARMSET_SEATS / 64] = {1};

static int warmset_swap_int(int *at, int old, int value) {
    return _Py_atomic_compare_exchange_int(at, &old, value);
}

static void warmset_give_seat_up(void *seat) {
    Py_ssize_t number = (Py_ssize_t)seat;
    warmset_seat = 0;
    (void)_Py_atomic_and_uint64(&warmset_seats[number / 64], ~((uint64_t)1 << number % 64));
}

/* The seat is given back when the thread ends. */
  #if defined(_WIN32)
static DWORD warmset_at_end = FLS_OUT_OF_INDEXES;
static void WINAPI warmset_thread_ends(void *seat) {
    if (seat != NULL) warmset_give_seat_up(seat);
}
static int warmset_prepare_seats(void) {
    if (warmset_at_end == FLS_OUT_OF_INDEXES) warmset_at_end = FlsAlloc(warmset_thread_ends);
    return warmset_at_end == FLS_OUT_OF_INDEXES ? -1 : 0;
}
static int warmset_note_seat(Py_ssize_t seat) {
    return FlsSetValue(warmset_at_end, (void *)seat) ? 0 : -1;
}
  #else
static pthread_key_t warmset_at_end;
static int warmset_prepared;
static int warmset_prepare_seats(void) {
    if (!warmset_prepared) {
        if (pthread_key_create(&warmset_at_end, warmset_give_seat_up) != 0) return -1;
        warmset_prepared = 1;
    }
    return 0;
}
static int warmset_note_seat(Py_ssize_t seat) {
    return pthread_setspecific(warmset_at_end, (void *)seat);
}
  #endif

static void warmset_take_seat(void) {
    Py_ssize_t seat;
    for (seat = 1; seat < WARMSET_SEATS && warmset_seat == 0; seat++) {
        uint64_t bit = (uint64_t)1 << seat % 64;
        if (_Py_atomic_or_uint64(&warmset_seats[seat / 64], bit) & bit) continue;
        if (warmset_note_seat(seat) == 0) warmset_seat = (int)seat;
        else warmset_give_seat_up((void *)seat);
    }
}

/* In a child process there is no other thread. */
static void warmset_keep_own_seat(void) {
    memset(warmset_seats, 0, sizeof warmset_seats);
    warmset_seats[0] = 1;
    warmset_seats[warmset_seat / 64] |= (uint64_t)1 << warmset_seat % 64;
}
#else
static inline int warmset_swap_int(int *at, int old, int value) {
    return *at == old ? (*at = value, 1) : 0;
}
static inline int warmset_prepare_seats(void) { return 0; }
static inline void warmset_take_seat(void) {}
static inline void warmset_keep_own_seat(void) {}
#endif

/* -- tables and stripes ----------------------------------------------------------------------- */

static inline warmset_stripe *warmset_new_stripe(void) {
    char *memory = (char *)calloc(1, sizeof(warmset_stripe) + WARMSET_LINE);
    warmset_stripe *stripe;
    if (memory == NULL) return NULL;
    stripe = (warmset_stripe *)(memory + WARMSET_LINE - (uintptr_t)memory % WARMSET_LINE);
    stripe->memory = memory;
    stripe->holds.newer = stripe->holds.older = &stripe->holds;
    return stripe;
}

static inline void warmset_drop_table(warmset_table *table) {
    Py_ssize_t i;
    if (table == NULL) return;
#if WARMSET_FREE_THREADED
    if (_Py_atomic_add_ssize(&table->owners, -1) > 1) return;
#endif
    for (i = 0; i < table->used; i++)
        if (table->stripes[i] != NULL) free(table->stripes[i]->memory);
    free(table);
}

static inline warmset_table *warmset_new_table(void) {
    warmset_table *table = (warmset_table *)calloc(1, sizeof(warmset_table));
    if (table == NULL) return NULL;
    table->owners = table->used = 1;
    table->stripes[0] = warmset_new_stripe();
    if (table->stripes[0] == NULL) {
        free(table);
        return NULL;
    }
    return table;
}

/* Give the calling thread a stripe, if it can have one. Under the lock. */
static inline void warmset_sit_down(warmset_table *table) {
    warmset_stripe *stripe;
    if (warmset_seat == 0) warmset_take_seat();
    if (warmset_seat == 0 || table->stripes[warmset_seat] != NULL) return;
    stripe = warmset_new_stripe();
    if (stripe == NULL) return;
    warmset_store_pointer(&table->stripes[warmset_seat], stripe);
    if (warmset_seat >= table->used) {
        Py_ssize_t used = warmset_seat + 1;
        warmset_add_size(&table->used, used - table->used);
    }
}

static inline warmset_stripe *warmset_own(warmset_table *table) {
    return warmset_seat == 0 ? NULL
                             : (warmset_stripe *)warmset_load_pointer(&table->stripes[warmset_seat]);
}

static inline Py_ssize_t warmset_table_bytes(warmset_table *table) {
    Py_ssize_t i, bytes = sizeof(warmset_table);
    for (i = 0; i < table->used; i++)
        if (table->stripes[i] != NULL) bytes += sizeof(warmset_stripe) + WARMSET_LINE;
    return bytes;
}

/* -- readers ---------------------------------------------------------------------------------- */

/* Begin to read; NULL if this thread has no stripe yet. */
static inline warmset_stripe *warmset_enter(warmset_table *table) {
    warmset_stripe *stripe = warmset_own(table);
#if WARMSET_FREE_THREADED
    if (stripe != NULL) (void)_Py_atomic_exchange_uint64(&stripe->turn, stripe->turn + 1);
#endif
    return stripe;
}

static inline void warmset_leave(warmset_stripe *stripe) {
#if WARMSET_FREE_THREADED
    _Py_atomic_store_uint64_release(&stripe->turn, stripe->turn + 1);
#else
    (void)stripe;
#endif
}

/* Wait until each reader that may have seen what was there before has left. */
static inline void warmset_wait(warmset_table *table) {
#if WARMSET_FREE_THREADED
    Py_ssize_t i, used;
    _Py_atomic_fence_seq_cst();
    used = warmset_load_size(&table->used);
    for (i = 1; i < used; i++) {
        warmset_stripe *stripe = (warmset_stripe *)warmset_load_pointer(&table->stripes[i]);
        uint64_t turn;
        int spins = 0;
        if (stripe == NULL) continue;
        turn = _Py_atomic_load_uint64(&stripe->turn);
        while (turn % 2 && _Py_atomic_load_uint64(&stripe->turn) == turn) {
            if (++spins % 64) warmset_pause();
            else warmset_yield(); /* its thread may want this very processor */
        }
    }
#else
    (void)table;
#endif
}

/* -- what readers note ------------------------------------------------------------------------ */

/* Put a slot into the list of those that are out of order, unless it is in one. */
static inline void warmset_touch(warmset_stripe *stripe, warmset_trace *trace) {
    warmset_trace *head;
    if (warmset_load_byte(&trace->touched) || warmset_exchange_byte(&trace->touched, 1)) return;
    head = (warmset_trace *)warmset_load_pointer(&stripe->touched);
    do {
        trace->next = head;
    } while (!warmset_replace_pointer(&stripe->touched, &head, trace));
}

/* Take the lists of all threads, as one that is not in order. */
static inline warmset_trace *warmset_gather(warmset_table *table) {
    warmset_trace *all = NULL, *last, *list;
    Py_ssize_t i;
    for (i = 1; i < table->used; i++) {
        warmset_stripe *stripe = table->stripes[i];
        if (stripe == NULL || warmset_load_pointer(&stripe->touched) == NULL) continue;
        list = last = (warmset_trace *)warmset_exchange_pointer(&stripe->touched, NULL);
        while (last->next != NULL) last = last->next;
        last->next = all;
        all = list;
    }
    return all;
}

static inline uint64_t warmset_hits(warmset_table *table) {
    uint64_t hits = 0;
    Py_ssize_t i, used = warmset_load_size(&table->used);
    for (i = 1; i < used; i++) {
        warmset_stripe *stripe = (warmset_stripe *)warmset_load_pointer(&table->stripes[i]);
        if (stripe != NULL) hits += warmset_load_number(&stripe->hits);
    }
    return hits;
}

/* The uses of a slot that its threads have not added to it yet; and let them forget it. */
static inline uint64_t warmset_late_uses(warmset_table *table, void *slot, int forget) {
    uint64_t uses = 0;
    Py_ssize_t i, used;
    if (table == NULL) return 0;
    used = warmset_load_size(&table->used);
    for (i = 1; i < used; i++) {
        warmset_stripe *stripe = (warmset_stripe *)warmset_load_pointer(&table->stripes[i]);
        void *last = slot;
        uint64_t late;
        if (stripe == NULL || warmset_load_pointer(&stripe->last) != slot) continue;
        /* Read before it is let go: after that, its thread counts on from another base. */
        late = warmset_load_number(&stripe->hits) - warmset_load_number(&stripe->before);
        if (!forget || warmset_replace_pointer(&stripe->last, &last, NULL)) uses += late;
    }
    return uses;
}

/* -- locks of a few instructions -------------------------------------------------------------- */

static inline void warmset_lock(int *lock) {
#if WARMSET_FREE_THREADED
    int spins = 0;
    while (_Py_atomic_exchange_int(lock, 1)) {
        do {
            if (++spins % 64) warmset_pause();
            else warmset_yield();
        } while (_Py_atomic_load_int_relaxed(lock));
    }
#else
    (void)lock;
#endif
}

static inline void warmset_unlock(int *lock) {
#if WARMSET_FREE_THREADED
    _Py_atomic_store_int_release(lock, 0);
#else
    (void)lock;
#endif
}

/* -- holds ------------------------------------------------------------------------------------ */

static inline void warmset_link_hold(warmset_table *table, warmset_hold *hold) {
#if WARMSET_FREE_THREADED
    warmset_stripe *stripe = warmset_own(table);
    if (stripe == NULL) stripe = table->stripes[0];
    hold->stripe = stripe;
    warmset_lock(&stripe->lock);
    hold->newer = &stripe->holds;
    hold->older = stripe->holds.older;
    hold->older->newer = hold;
    stripe->holds.older = hold;
    warmset_unlock(&stripe->lock);
#else
    (void)table, (void)hold;
#endif
}

static inline void warmset_unlink_hold(warmset_hold *hold) {
#if WARMSET_FREE_THREADED
    if (hold->newer == NULL) return;
    warmset_lock(&hold->stripe->lock);
    hold->newer->older = hold->older;
    hold->older->newer = hold->newer;
    warmset_unlock(&hold->stripe->lock);
    hold->newer = hold->older = NULL;
#else
    (void)hold;
#endif
}

#endif
