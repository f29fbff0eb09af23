/*
Per-thread state and memory of the compiled core.

    Table, one for a registry
      stripes[number] --> Stripe of one thread: turn, stamp, hits, holds
                            holds --> Hold, Hold, ...    (an arena: records of who holds what)

Holds
    A record of a hold lives in an arena that its stripe owns, never on a C stack: a thread may end,
    a greenlet may be switched, and a process may fork in the middle of a call, and whoever lists the
    holds then still reads memory of ours. Taking a record and returning it are pops and pushes of a
    free list. An arena is freed with its table, and stays if a hold is still recorded in it.

    With an interpreter lock a registry has one stripe, number 0, and nothing else of what follows is
    used; the types and the plain versions of the operations are there so that the core reads the same.

Readers without a lock (free-threaded interpreters)
    A thread has a number of its own until it ends, and in each registry that it uses a stripe that it
    alone writes to, so hits of several threads share no cache line except those of what they find.
    Threads beyond the last number have none, and take the lock of the registry.

    A look-up without a lock reads borrowed pointers. It does so between `warmset_enter`, which makes
    the turn of its stripe odd, and `warmset_leave`, which makes it even; in between is plain C, a
    dozen stores long, that cannot give up its thread. A thread that takes something out of the reach
    of readers does that first, and then waits in `warmset_wait` until each reader that was inside has
    left: from then on nobody has the old pointer without a reference of its own. That is
    read-copy-update as P. E. McKenney and J. D. Slingwine describe it, with a wait that is cheap
    because it is rare. The exchange in `enter` and the fence in `wait` order the two: either the
    reader sees the change, or the waiting thread sees the reader.
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
  #define warmset_load_byte(at) _Py_atomic_load_uint8(at)
  #define warmset_store_byte(at, value) _Py_atomic_store_uint8(at, value)
  #define warmset_load_number(at) _Py_atomic_load_uint64_relaxed((uint64_t *)(at))
  #define warmset_store_number(at, value) _Py_atomic_store_uint64_relaxed(at, value)
  #define warmset_add_number(at, value) \
      ((void)_Py_atomic_add_uint64((uint64_t *)(at), (uint64_t)(int64_t)(value)))
  #define warmset_add_holds(at, value) ((void)_Py_atomic_add_uint32(at, (uint32_t)(value)))
  #define warmset_load_holds(at) _Py_atomic_load_uint32_relaxed(at)
  #define warmset_load_size(at) _Py_atomic_load_ssize(at)
  #define warmset_fetch_size(at, value) _Py_atomic_add_ssize(at, value)
  #define warmset_fence() _Py_atomic_fence_seq_cst()
  #define warmset_fence_after_load() _Py_atomic_fence_acquire()
#else
  #define WARMSET_FREE_THREADED 0
  #define warmset_load_pointer(at) (*(at))
  #define warmset_store_pointer(at, value) ((void)(*(at) = (value)))
  #define warmset_exchange_pointer(at, value) (*(at) = (value))
  #define warmset_load_byte(at) (*(at))
  #define warmset_store_byte(at, value) ((void)(*(at) = (value)))
  #define warmset_load_number(at) (*(at))
  #define warmset_store_number(at, value) ((void)(*(at) = (value)))
  #define warmset_add_number(at, value) ((void)(*(at) += (value)))
  #define warmset_add_holds(at, value) ((void)(*(at) += (value)))
  #define warmset_load_holds(at) (*(at))
  #define warmset_load_size(at) (*(at))
  #define warmset_fetch_size(at, value) ((*(at) += (value)) - (value))
  #define warmset_fence() ((void)0)
  #define warmset_fence_after_load() ((void)0)
#endif
#define warmset_add_size(at, value) ((void)warmset_fetch_size(at, value))

#if WARMSET_FREE_THREADED
static inline double warmset_load_time(double *at) {
    uint64_t bits = _Py_atomic_load_uint64_relaxed((uint64_t *)at);
    double time;
    memcpy(&time, &bits, sizeof time);
    return time;
}

static inline void warmset_store_time(double *at, double time) {
    uint64_t bits;
    memcpy(&bits, &time, sizeof bits);
    _Py_atomic_store_uint64_relaxed((uint64_t *)at, bits);
}
#else
  #define warmset_load_time(at) (*(at))
  #define warmset_store_time(at, time) ((void)(*(at) = (time)))
#endif

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

/* -- reference counts -------------------------------------------------------------------------- */

/*
Count a reference of this thread with those of all threads.

On a free-threaded interpreter an object has two counts: one of the thread that made it, and one of
all others together. When the first drops to zero, the interpreter merges the two for good, and the
remaining one can be read at one moment. So a reference that a registry keeps is counted with the
others: then the first count drops as soon as its thread has no reference of its own any more.
*/
#if WARMSET_FREE_THREADED
static inline void warmset_share_reference(PyObject *one) {
    if (_Py_IsImmortal(one)) return;
    (void)_Py_atomic_add_ssize(&one->ob_ref_shared, (Py_ssize_t)1 << _Py_REF_SHARED_SHIFT);
    Py_DECREF(one); /* it is not the last: nothing dies here */
}

/* Whether the caller's is the only reference; 0 where that is not known. */
static inline int warmset_is_alone(PyObject *one) {
    Py_ssize_t shared = _Py_atomic_load_ssize(&one->ob_ref_shared);
    Py_ssize_t counted = shared >> _Py_REF_SHARED_SHIFT;
    if ((shared & _Py_REF_SHARED_FLAG_MASK) == _Py_REF_MERGED) return counted == 1;
    if (_Py_atomic_load_uintptr_relaxed(&one->ob_tid) != _Py_ThreadId()) return 0;
    /* Its maker is this thread, which changes nothing meanwhile. */
    return counted + _Py_atomic_load_uint32_relaxed(&one->ob_ref_local) == 1;
}
#else
  #define warmset_share_reference(one) ((void)(one))
  #define warmset_is_alone(one) (Py_REFCNT(one) == 1)
#endif

/* -- what the threads write to ---------------------------------------------------------------- */

#if WARMSET_FREE_THREADED
typedef PyMutex warmset_mutex;
  #define warmset_mutex_lock(mutex) PyMutex_Lock(mutex)
  #define warmset_mutex_unlock(mutex) PyMutex_Unlock(mutex)
#else
typedef char warmset_mutex;
  #define warmset_mutex_lock(mutex) ((void)(mutex))
  #define warmset_mutex_unlock(mutex) ((void)(mutex))
#endif
#define warmset_mutex_reset(mutex) memset(mutex, 0, sizeof *(mutex))

typedef struct warmset_hold {
    struct warmset_hold *next; /* in the free list */
    struct warmset_stripe *stripe;
    PyObject *entry; /* borrowed from the holder, whose reference outlives it; NULL: free */
    unsigned long thread;
    double since;
} warmset_hold;

enum { WARMSET_CHUNK = 31, WARMSET_STRIPES = 128, WARMSET_LINE = 128 };

typedef struct warmset_chunk {
    struct warmset_chunk *next;
    warmset_hold holds[WARMSET_CHUNK];
} warmset_chunk;

typedef struct warmset_stripe {
    uint64_t turn;   /* odd while its thread reads */
    uint64_t stamp;  /* the last one that it gave */
    uint64_t hits;   /* all of its thread */
    uint64_t displaced; /* look-ups of slots that others displaced from the address table */
    uint64_t before; /* of the hits, those before its uses of `last` */
    void *last;      /* the entry that its thread used last, borrowed */
    warmset_hold *free;
    warmset_chunk *chunks;
    Py_ssize_t held; /* records in use */
    int lock;        /* of the arena: a hold may be released by another thread */
    void *memory;    /* what to free */
} warmset_stripe;

typedef struct warmset_table {
    warmset_stripe *stripes[WARMSET_STRIPES]; /* by number; 0 serves threads without a number */
    Py_ssize_t used;                          /* no stripe has this number or a higher one */
    Py_ssize_t owners;                        /* the registry, and its slots */
} warmset_table;

/* -- numbers of threads --------------------------------------------------------------------------- */

#if WARMSET_FREE_THREADED
static WARMSET_THREAD_LOCAL int warmset_number; /* 0: none */
static uint64_t warmset_numbers[WARMSET_STRIPES / 64] = {1};

static int warmset_swap_state(int *at, int old, int value) {
    return _Py_atomic_compare_exchange_int(at, &old, value);
}

static void warmset_return_number(void *mine) {
    Py_ssize_t number = (Py_ssize_t)mine;
    warmset_number = 0;
    (void)_Py_atomic_and_uint64(&warmset_numbers[number / 64], ~((uint64_t)1 << number % 64));
}

/* The number is returned when the thread ends. */
  #if defined(_WIN32)
static DWORD warmset_at_end = FLS_OUT_OF_INDEXES;
static void WINAPI warmset_thread_ends(void *number) {
    if (number != NULL) warmset_return_number(number);
}
static int warmset_prepare_numbers(void) {
    if (warmset_at_end == FLS_OUT_OF_INDEXES) warmset_at_end = FlsAlloc(warmset_thread_ends);
    return warmset_at_end == FLS_OUT_OF_INDEXES ? -1 : 0;
}
static int warmset_note_number(Py_ssize_t number) {
    return FlsSetValue(warmset_at_end, (void *)number) ? 0 : -1;
}
  #else
static pthread_key_t warmset_at_end;
static int warmset_prepared;
static int warmset_prepare_numbers(void) {
    if (!warmset_prepared) {
        if (pthread_key_create(&warmset_at_end, warmset_return_number) != 0) return -1;
        warmset_prepared = 1;
    }
    return 0;
}
static int warmset_note_number(Py_ssize_t number) {
    return pthread_setspecific(warmset_at_end, (void *)number);
}
  #endif

static void warmset_take_number(void) {
    Py_ssize_t number;
    for (number = 1; number < WARMSET_STRIPES && warmset_number == 0; number++) {
        uint64_t bit = (uint64_t)1 << number % 64;
        if (_Py_atomic_or_uint64(&warmset_numbers[number / 64], bit) & bit) continue;
        if (warmset_note_number(number) == 0) warmset_number = (int)number;
        else warmset_return_number((void *)number);
    }
}

/* In a child process there is no other thread. */
static void warmset_keep_own_number(void) {
    memset(warmset_numbers, 0, sizeof warmset_numbers);
    warmset_numbers[0] = 1;
    warmset_numbers[warmset_number / 64] |= (uint64_t)1 << warmset_number % 64;
}
#else
static inline int warmset_swap_state(int *at, int old, int value) {
    return *at == old ? (*at = value, 1) : 0;
}
  #define warmset_prepare_numbers() 0
  #define warmset_keep_own_number() ((void)0)
#endif

/* -- tables and stripes ----------------------------------------------------------------------- */

static inline warmset_stripe *warmset_new_stripe(void) {
    char *memory = (char *)calloc(1, sizeof(warmset_stripe) + WARMSET_LINE);
    warmset_stripe *stripe;
    if (memory == NULL) return NULL;
    stripe = (warmset_stripe *)(memory + WARMSET_LINE - (uintptr_t)memory % WARMSET_LINE);
    stripe->memory = memory;
    return stripe;
}

static inline void warmset_drop_stripe(warmset_stripe *stripe) {
    warmset_chunk *chunk, *next;
    if (stripe == NULL || stripe->held > 0) return; /* whoever holds still writes to its record */
    for (chunk = stripe->chunks; chunk != NULL; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(stripe->memory);
}

static inline void warmset_drop_table(warmset_table *table) {
    Py_ssize_t i;
    if (table == NULL) return;
    if (warmset_fetch_size(&table->owners, -1) > 1) return;
    for (i = 0; i < table->used; i++) warmset_drop_stripe(table->stripes[i]);
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

static inline Py_ssize_t warmset_table_bytes(warmset_table *table) {
    Py_ssize_t i, bytes = sizeof(warmset_table);
    for (i = 0; i < table->used; i++)
        if (table->stripes[i] != NULL) bytes += sizeof(warmset_stripe) + WARMSET_LINE;
    return bytes;
}

/* -- readers ---------------------------------------------------------------------------------- */

#if WARMSET_FREE_THREADED
/* Give the calling thread a stripe, if it can have one. Under the lock. */
static inline void warmset_join(warmset_table *table) {
    warmset_stripe *stripe;
    if (warmset_number == 0) warmset_take_number();
    if (warmset_number == 0 || table->stripes[warmset_number] != NULL) return;
    stripe = warmset_new_stripe();
    if (stripe == NULL) return;
    warmset_store_pointer(&table->stripes[warmset_number], stripe);
    if (warmset_number >= table->used)
        warmset_add_size(&table->used, warmset_number + 1 - table->used);
}

/* The stripe of the calling thread; NULL if it has none yet. */
static inline warmset_stripe *warmset_own(warmset_table *table) {
    if (warmset_number == 0) return NULL;
    return (warmset_stripe *)warmset_load_pointer(&table->stripes[warmset_number]);
}

/* Begin to read; NULL if this thread has no stripe yet. */
static inline warmset_stripe *warmset_enter(warmset_table *table) {
    warmset_stripe *stripe = warmset_own(table);
    if (stripe != NULL) (void)_Py_atomic_exchange_uint64(&stripe->turn, stripe->turn + 1);
    return stripe;
}

static inline void warmset_leave(warmset_stripe *stripe) {
    _Py_atomic_store_uint64_release(&stripe->turn, stripe->turn + 1);
}

/* Wait until each reader that may have seen what was there before has left. */
static inline void warmset_wait(warmset_table *table) {
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
}

/* Hits that are counted in the stripes of their threads. */
static inline uint64_t warmset_hits(warmset_table *table) {
    uint64_t hits = 0;
    Py_ssize_t i, used = warmset_load_size(&table->used);
    for (i = 1; i < used; i++) {
        warmset_stripe *stripe = (warmset_stripe *)warmset_load_pointer(&table->stripes[i]);
        if (stripe != NULL) hits += warmset_load_number(&stripe->hits);
    }
    return hits;
}

/* The uses of an entry that its threads have not added to it yet; `forget` takes them over. */
static inline uint64_t warmset_late_uses(warmset_table *table, void *entry, int forget) {
    uint64_t uses = 0;
    Py_ssize_t i, used;
    if (table == NULL) return 0;
    used = warmset_load_size(&table->used);
    for (i = 1; i < used; i++) {
        warmset_stripe *stripe = (warmset_stripe *)warmset_load_pointer(&table->stripes[i]);
        void *last = entry;
        uint64_t late;
        if (stripe == NULL || warmset_load_pointer(&stripe->last) != entry) continue;
        /* Read before it is taken over: after that, its thread counts from another base. */
        late = warmset_load_number(&stripe->hits) - warmset_load_number(&stripe->before);
        if (!forget || _Py_atomic_compare_exchange_ptr(&stripe->last, &last, NULL)) uses += late;
    }
    return uses;
}
#else
/* Its only reader is the thread that has the interpreter lock: it may read, and waits for nobody. */
static warmset_stripe warmset_only;
  #define warmset_join(table) ((void)(table))
  #define warmset_own(table) ((void)(table), (warmset_stripe *)NULL)
  #define warmset_enter(table) ((void)(table), &warmset_only)
  #define warmset_leave(stripe) ((void)(stripe))
  #define warmset_wait(table) ((void)(table))
  #define warmset_hits(table) ((void)(table), (uint64_t)0)
  #define warmset_late_uses(table, entry, forget) ((void)(table), (uint64_t)0)
#endif

/* -- locks of a few instructions -------------------------------------------------------------- */

#if WARMSET_FREE_THREADED
static inline void warmset_lock(int *lock) {
    int spins = 0;
    while (_Py_atomic_exchange_int(lock, 1)) {
        do {
            if (++spins % 64) warmset_pause();
            else warmset_yield();
        } while (_Py_atomic_load_int_relaxed(lock));
    }
}
  #define warmset_unlock(lock) _Py_atomic_store_int_release(lock, 0)
#else
  #define warmset_lock(lock) ((void)(lock))
  #define warmset_unlock(lock) ((void)(lock))
#endif

/* -- holds ------------------------------------------------------------------------------------ */

/* Add a chunk of records to the free list of a stripe; -1 if there is no memory. */
static inline int warmset_grow(warmset_stripe *stripe) {
    warmset_chunk *chunk = (warmset_chunk *)calloc(1, sizeof(warmset_chunk));
    int i;
    if (chunk == NULL) return -1;
    for (i = 0; i < WARMSET_CHUNK; i++) {
        chunk->holds[i].stripe = stripe;
        chunk->holds[i].next = stripe->free;
        stripe->free = &chunk->holds[i];
    }
    chunk->next = stripe->chunks;
    stripe->chunks = chunk;
    return 0;
}

/* Record a hold; NULL if there is no memory. The entry is borrowed from the holder. */
static inline warmset_hold *warmset_take_hold(
    warmset_table *table, PyObject *entry, unsigned long thread, double since
) {
    warmset_stripe *stripe = warmset_own(table);
    warmset_hold *hold = NULL;
    if (stripe == NULL) stripe = table->stripes[0];
    warmset_lock(&stripe->lock);
    if (stripe->free != NULL || warmset_grow(stripe) == 0) {
        hold = stripe->free;
        stripe->free = hold->next;
        stripe->held++;
        hold->thread = thread;
        hold->since = since;
        hold->entry = entry;
    }
    warmset_unlock(&stripe->lock);
    return hold;
}

/* Copy the records of all holds, with references to their entries, into memory that the caller frees. */
static inline warmset_hold *warmset_copy_holds(warmset_table *table, Py_ssize_t *count) {
    Py_ssize_t i, room = 1, used = warmset_load_size(&table->used);
    warmset_hold *copies;
    for (i = 0; i < used; i++)
        if (table->stripes[i] != NULL) room += warmset_load_size(&table->stripes[i]->held);
    copies = (warmset_hold *)PyMem_Malloc(room * sizeof *copies);
    *count = 0;
    for (i = 0; copies != NULL && i < used; i++) {
        warmset_stripe *stripe = (warmset_stripe *)warmset_load_pointer(&table->stripes[i]);
        warmset_chunk *chunk;
        int place;
        if (stripe == NULL) continue;
        warmset_lock(&stripe->lock);
        for (chunk = stripe->chunks; chunk != NULL; chunk = chunk->next)
            for (place = 0; place < WARMSET_CHUNK && *count < room; place++) {
                /* Its holder has the entry until the record is free. */
                if (chunk->holds[place].entry == NULL) continue;
                Py_INCREF(chunk->holds[place].entry);
                copies[(*count)++] = chunk->holds[place];
            }
        warmset_unlock(&stripe->lock);
    }
    return copies;
}

/* Void the record of a hold of another thread than this one, and return its entry; NULL if there is
   none left. Its holder returns the record, if the holder still exists. */
static inline PyObject *warmset_void_hold(warmset_table *table, unsigned long thread) {
    Py_ssize_t i, used = warmset_load_size(&table->used);
    for (i = 0; i < used; i++) {
        warmset_stripe *stripe = (warmset_stripe *)warmset_load_pointer(&table->stripes[i]);
        warmset_chunk *chunk;
        int place;
        if (stripe == NULL) continue;
        for (chunk = stripe->chunks; chunk != NULL; chunk = chunk->next)
            for (place = 0; place < WARMSET_CHUNK; place++) {
                PyObject *entry = chunk->holds[place].entry;
                if (entry == NULL || chunk->holds[place].thread == thread) continue;
                chunk->holds[place].entry = NULL;
                return entry;
            }
    }
    return NULL;
}

/* Free a record; return whether it was not void. */
static inline int warmset_return_hold(warmset_hold *hold) {
    warmset_stripe *stripe = hold->stripe;
    int valid = hold->entry != NULL;
    warmset_lock(&stripe->lock);
    hold->entry = NULL;
    hold->next = stripe->free;
    stripe->free = hold;
    stripe->held--;
    warmset_unlock(&stripe->lock);
    return valid;
}

#endif
