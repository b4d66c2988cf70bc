/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin ABI: what a vendor's shared object and its host agree on. C11; also compiles as C++20.
 * C++ plugins use the facade hookline/plugin.hpp and never touch this file's structures by hand.
 *
 * A plugin is one constant-initialised data object, the only exported symbol of its file:
 *
 *     const struct hookline_plugin hookline_plugin_v1 = { HOOKLINE_ABI, .name = "toy", ... };
 *
 * Life cycle. One device, one worker process, one thread; nothing below is ever called from two threads. A plugin never
 * waits for the VMM and never creates threads that outlive a callback.
 *
 *     load -> check (no code of the plugin runs) -> match -> options checked by the host
 *       |
 *       v   once per open of the device by a VMM
 *     open() --> access() ioctl() event()* --> close()
 *                   |                ^
 *                   |  source                        |  destination
 *                   +-> save_bulk()* -> save()*      +-- load_bulk()* -> load()* -> apply()
 *
 * save() runs while the device is stopped; load() sees each section in order after the whole stream was verified, apply()
 * makes the loaded state live. What is too large to wait (a GPU's memory) goes by save_bulk(), also while the device runs, and
 * load_bulk() gets it as it arrives. After a failed load_bulk(), load() or apply() the host lets the device be reset.
 *
 * Growth. The major version is part of the symbol's name. Within a major version fields are only appended; a host copies
 * min(abi.size, its own size) and takes what is missing as zero. Zero is the safe value everywhere: an absent callback
 * passes, an unknown operation is refused, nothing is claimed.
 *
 * Answers. 0 handled, positive pass on, negative -errno. A callback that fails may first tell why with host->fail().
 * Exceptions never cross: the facade turns them into errno and text; a C plugin has none.
 *
 * Memory. Who allocates frees. Everything the plugin object points to lives as long as the library is loaded; everything
 * the host passes is valid for the duration of that call unless its line says otherwise.
 */
#ifndef HOOKLINE_PLUGIN_H
#define HOOKLINE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HOOKLINE_ABI_MAGIC 0x4b4c4b48u /* "HKLK" in memory */
#define HOOKLINE_ABI_MAJOR 1
#define HOOKLINE_ABI_MINOR 2 /* 1: migration parameters, several state versions; 2: bulk sections, touched pages, FILL */

/* Host features a plugin may require in abi.required. A host that lacks one refuses the plugin by name of the bit. */
#define HOOKLINE_REQUIRE_IOVA_READ (UINT64_C(1) << 0)  /* guest memory, at least for reading */
#define HOOKLINE_REQUIRE_PF (UINT64_C(1) << 1)         /* requests to the PF's side through the supervisor */
#define HOOKLINE_REQUIRE_PARAMETERS (UINT64_C(1) << 2) /* migration parameters: a host of ABI 1.0 has none */
#define HOOKLINE_REQUIRE_BULK (UINT64_C(1) << 3)       /* bulk sections and touched pages: a host of ABI 1.1 has neither */
#define HOOKLINE_HOST_FEATURES \
  (HOOKLINE_REQUIRE_IOVA_READ | HOOKLINE_REQUIRE_PF | HOOKLINE_REQUIRE_PARAMETERS | HOOKLINE_REQUIRE_BULK)

/* Frozen for ever: every major version opens with it. */
struct hookline_abi {
  uint32_t magic; /* HOOKLINE_ABI_MAGIC */
  uint16_t major;
  uint16_t minor;
  uint32_t size; /* sizeof(struct hookline_plugin) of the plugin's build */
  uint32_t reserved;
  uint64_t required; /* HOOKLINE_REQUIRE_* */
};

/* The three answers. RUN_REST, of ioctl() only: those behind this plugin, and at last vfio-pci, carry it out; then ioctl()
 * is asked again with HOOKLINE_IOCTL_AFTER. MORE, of save() and save_bulk() only: call again for another section. */
enum { HOOKLINE_HANDLED = 0, HOOKLINE_PASS = 1, HOOKLINE_RUN_REST = 2, HOOKLINE_MORE = 1 };

/* Operations. HOOKLINE_OPS_KNOWN is what this header knows; a later host may have more. */
enum { HOOKLINE_OP_READ = 0, HOOKLINE_OP_WRITE = 1, HOOKLINE_OP_IOCTL = 2, HOOKLINE_OP_FEATURE = 3, HOOKLINE_OPS_KNOWN = 4 };

/* What happens to an operation younger than the plugin: a guard refuses the chain, an observer lets it pass. */
enum { HOOKLINE_UNKNOWN_REFUSE = 0, HOOKLINE_UNKNOWN_PASS = 1 };

/* Claims: at most one plugin of a chain may hold each. */
#define HOOKLINE_CLAIM_MIGRATION (UINT32_C(1) << 0)

/* Regions are numbered as in linux/vfio.h: BAR 0 to 5, config space 7. */
#define HOOKLINE_REGION_CONFIG 7u

struct hookline_device_id {
  uint16_t vendor;
  uint16_t device;
};

/* A range the plugin wants to see: the VMM's accesses to these bytes come to access(). The rest of a page of it is left out of
 * the guest's direct mapping, too, but goes to the device without asking. */
#define HOOKLINE_WANT_READ (UINT32_C(1) << HOOKLINE_OP_READ)
#define HOOKLINE_WANT_WRITE (UINT32_C(1) << HOOKLINE_OP_WRITE)
struct hookline_range {
  uint32_t region;
  uint32_t ops;    /* HOOKLINE_WANT_* */
  uint64_t offset; /* bytes */
  uint64_t length; /* bytes, not 0 */
};

/* A register's name, for tracing and messages only. */
struct hookline_register {
  const char* name; /* static */
  uint32_t region;
  uint32_t offset;
  uint32_t width; /* bytes */
};

/* One step of a register program; the kernel runs it. Fields and meaning as struct vfio_pci_hooks_step in
 * linux/vfio_pci_hooks.h. */
enum {
  HOOKLINE_STEP_WRITE = 1,   /* register = value */
  HOOKLINE_STEP_MODIFY = 2,  /* register = (register & ~mask) | (value & mask); mask 0 rewrites what was read */
  HOOKLINE_STEP_SAVE = 3,    /* saved[slot] = register */
  HOOKLINE_STEP_RESTORE = 4, /* register = saved[slot] */
  HOOKLINE_STEP_POLL = 5,    /* wait until (register & mask) == value, at most timeout_us */
  HOOKLINE_STEP_DELAY = 6,   /* wait timeout_us */
  /* `mask` bytes from `offset` = value, again and again: scrubs memory. Width 4, offset and mask multiples of 4; mask 0:
   * up to the end of the BAR. In stores of 4 or 8 bytes. One program fills at most as many bytes of a BAR as it has. Since ABI 1.2. */
  HOOKLINE_STEP_FILL = 7
};
#define HOOKLINE_SAVED 32 /* slots */
#define HOOKLINE_MAX_STEPS 64
struct hookline_step {
  uint8_t op;
  uint8_t bar;
  uint8_t width; /* 1, 2 or 4 bytes */
  uint8_t slot;
  uint32_t offset;
  uint32_t mask;
  uint32_t value;
  uint32_t timeout_us; /* POLL, DELAY: at most 100000; one program at most 1 s */
};

struct hookline_program {
  const struct hookline_step* steps; /* start_once(): valid for the call; in the plugin object: static */
  uint32_t nr_steps;                 /* at most HOOKLINE_MAX_STEPS */
  uint32_t reserved;
};

/* A typed option. The host checks the YAML value, names line and column of what is wrong, and passes only typed values. */
enum { HOOKLINE_KEY_BOOL = 1, HOOKLINE_KEY_UINT = 2, HOOKLINE_KEY_STRING = 3, HOOKLINE_KEY_CHOICE = 4 };
#define HOOKLINE_KEY_REQUIRED (UINT32_C(1) << 0)
/* BOOL: true puts an in-kernel handler, which `choices` names, before the plugins of the chain. Since ABI 1.2. */
#define HOOKLINE_KEY_HANDLER (UINT32_C(1) << 1)
struct hookline_key {
  const char* name;          /* static; [a-z][a-z0-9_]* */
  const char* help;          /* static; one line */
  const char* default_value; /* static; as it would be written in YAML; NULL: none */
  const char* choices;       /* static; CHOICE: separated by '|'; with KEY_HANDLER the handler's name */
  uint32_t type;             /* HOOKLINE_KEY_* */
  uint32_t flags;            /* HOOKLINE_KEY_REQUIRED, HOOKLINE_KEY_HANDLER */
  uint64_t min, max;         /* UINT */
};

struct hookline_value {
  const char* text; /* STRING, CHOICE; valid until close() */
  uint64_t number;  /* UINT; BOOL: 0 or 1 */
  uint32_t is_set;  /* 0: neither given nor defaulted */
  uint32_t reserved;
};

/*
 * A migration parameter: what source and destination must agree on, or what makes a newer plugin emit an older state format.
 * Only a migration owner has any. All texts are static. A value is 1 to 63 printable ASCII characters without blank and '|'.
 * A destination must allow the source's value; a source whose value is the off value can do without the parameter there.
 * Since ABI 1.1.
 */
#define HOOKLINE_PARAMETER_RUNTIME (UINT32_C(1) << 0) /* may change while the device is open; counts from the next save on */
#define HOOKLINE_PARAMETER_VERSION (UINT32_C(1) << 1) /* its value is the state version save() emits; RUNTIME, too; at most one */
#define HOOKLINE_MAX_PARAMETERS 32
struct hookline_parameter {
  const char* name;           /* [a-z][a-z0-9_]*, at most 31 bytes; not "model" */
  const char* description;    /* one line, at most 255 bytes */
  const char* init_value;     /* of a device that is new */
  const char* off_value;      /* as if the parameter did not exist */
  const char* allowed_values; /* separated by '|', at most 255 bytes; LOW-HIGH of two decimal numbers is a range: "off|1-8" */
  uint32_t flags;             /* HOOKLINE_PARAMETER_* */
  uint32_t reserved;
};

/* One access to a declared range, at most 8 bytes, naturally aligned. */
struct hookline_access {
  uint32_t op; /* HOOKLINE_OP_READ or _WRITE */
  uint32_t region;
  uint64_t offset;
  uint32_t length; /* bytes: 1, 2, 4 or 8 */
  uint32_t reserved;
  uint64_t value;     /* WRITE: what is written; READ: what a handler answers; little-endian, upper bytes 0 */
  void* host_private; /* the host's; valid for the call */
};

/* An ioctl or device feature of the VMM. With AFTER somebody has carried it out: who answers handled may have edited data
 * and result, who passes leaves them as they are. AFTER goes from the last plugin to the first, also to those that have not asked
 * for it: they pass. */
#define HOOKLINE_IOCTL_AFTER (UINT32_C(1) << 0)
struct hookline_ioctl {
  uint32_t op;       /* HOOKLINE_OP_IOCTL or _FEATURE */
  uint32_t number;   /* VFIO_DEVICE_* number above VFIO_BASE, or the flags of VFIO_DEVICE_FEATURE */
  uint8_t* data;     /* the argument; the host's, valid for the call; may be edited in place when the answer is handled */
  uint32_t length;   /* bytes of data */
  uint32_t flags;    /* HOOKLINE_IOCTL_* */
  int32_t result;    /* AFTER: what the VMM gets, 0 or more, or -errno; may be edited */
  uint32_t reserved;
};

enum { HOOKLINE_EVENT_RESET = 1, HOOKLINE_EVENT_STATE = 2 };
struct hookline_event {
  uint32_t what;
  uint32_t from, to; /* EVENT_STATE: VFIO_DEVICE_STATE_* of linux/vfio.h */
  uint32_t reserved;
};

/* What a plugin may ask of the PF's side of its own VF; the supervisor carries it out for exactly this VF. */
enum { HOOKLINE_PF_SET_MAC = 1, HOOKLINE_PF_SET_VLAN = 2, HOOKLINE_PF_GET = 3 };
struct hookline_pf_request {
  uint32_t what;
  uint8_t mac[6]; /* SET_MAC in; GET out: administratively set address, zero if none */
  uint16_t vlan;  /* SET_VLAN in; GET out: 0 if none */
  uint16_t qos;
  uint8_t trusted, spoofcheck; /* GET out */
};

/* Of bulk sections, since ABI 1.2. */
#define HOOKLINE_BULK_BEGIN (UINT32_C(1) << 0)   /* the first call of a stream: nothing of it was sent or loaded yet */
#define HOOKLINE_BULK_STOPPED (UINT32_C(1) << 1) /* save_bulk(): the device is stopped; what is not sent now is lost */

enum { HOOKLINE_LOG_ERROR = 0, HOOKLINE_LOG_WARNING = 1, HOOKLINE_LOG_INFO = 2, HOOKLINE_LOG_DEBUG = 3 };

struct hookline_device; /* the host's handle of one open device */
struct hookline_writer; /* of one save() or save_bulk() */
struct hookline_reader; /* of one load() or load_bulk() */

/* What the host gives. Every function returns 0 or -errno unless its line says otherwise. */
struct hookline_host {
  uint32_t size; /* sizeof(struct hookline_host) of the host's build: check before using what was appended */
  uint32_t reserved;

  /* Text for people, one line, copied. */
  void (*log)(struct hookline_device* dev, uint32_t level, const char* text);
  /* Why the running callback is about to fail; copied; returns -error, so that `return host->fail(...)` reads well. */
  int (*fail)(struct hookline_device* dev, int error, const char* text);

  /* A region access behind the chain, 1, 2, 4 or 8 bytes, naturally aligned. */
  int (*read)(struct hookline_device* dev, uint32_t region, uint64_t offset, uint32_t width, uint64_t* value);
  int (*write)(struct hookline_device* dev, uint32_t region, uint64_t offset, uint32_t width, uint64_t value);
  /* Lets everybody behind this plugin, and at last the device, do the access; its value is in access->value. */
  int (*run_rest)(struct hookline_device* dev, struct hookline_access* access);
  /* The BAR mapped into this process; the host's, valid until close(). Software models answer ENOTSUP: use read, write. */
  int (*map_bar)(struct hookline_device* dev, uint32_t bar, volatile void** address, size_t* length);
  /* Memory that survives this process, plugin->shadow_size bytes, zeroed when the device is opened or reset; the host's, valid
   * until close(). What is in it when access(), ioctl() or apply() returns is what a successor finds. */
  int (*shadow)(struct hookline_device* dev, void** address, size_t* length);
  /* Guest memory by IOVA, as far as the definition grants it, else -EPERM. */
  int (*iova_read)(struct hookline_device* dev, uint64_t iova, void* data, size_t length);
  int (*iova_write)(struct hookline_device* dev, uint64_t iova, const void* data, size_t length);
  /* In apply(): replaces the start program for the next way into RUNNING. */
  int (*start_once)(struct hookline_device* dev, const struct hookline_program* program);
  /* What a SAVE step of the stop program kept. */
  int (*saved)(struct hookline_device* dev, uint32_t slot, uint32_t* value);
  int (*pf_request)(struct hookline_device* dev, struct hookline_pf_request* request);

  /* In save() and save_bulk(): appends one named field to the plugin's section. Names as [a-z0-9_.]{1,63}, at most 1 MiB a section. */
  int (*put)(struct hookline_writer* out, const char* name, const void* data, size_t length);
  /* In load() and load_bulk(): the next field; its name and length must be these. */
  int (*get)(struct hookline_reader* in, const char* name, void* data, size_t length);
  /* In load() and load_bulk(): refuses the field read last, with the reason; returns -EINVAL. */
  int (*reject)(struct hookline_reader* in, const char* name, const char* reason);

  uint64_t (*now_ns)(void); /* CLOCK_MONOTONIC */

  /* Since ABI 1.1. *value is valid until the callback returns. */

  /* The value of parameters[index]. In save(): as it was when the stream began. In load() and apply(): what this device takes
   * over from the source. Otherwise the present one. */
  int (*parameter)(struct hookline_device* dev, uint32_t index, const char** value);
  /* In load() and apply(): the version of the state that comes, one of plugin->reads. */
  int (*stream_version)(struct hookline_device* dev, const char** version);

  /* Since ABI 1.2. */

  /* Which 4 KiB pages of a BAR the guest's processors may have touched (reads count) since the call before; the first call of an
   * open and the first after a reset answer all. Bit n % 64 of bitmap[n / 64]: page n from `offset`, which is page aligned; bits
   * behind `pages` are 0. What the device writes by itself, or another device by DMA, is not seen. -EOPNOTSUPP: nobody keeps track
   * here; take all for touched. Read a page after the call that names it, not before. */
  int (*touched)(struct hookline_device* dev, uint32_t bar, uint64_t offset, uint64_t pages, uint64_t* bitmap);
  /* In save() and save_bulk(): as put(), but the plugin fills the value in place before the callback returns: no copy. Sections may
   * hold stale bytes of earlier ones where it does not. */
  int (*reserve)(struct hookline_writer* out, const char* name, size_t length, void** data);
  /* In load() and load_bulk(): as get(), but the value in place and of any length up to `most`; valid until the callback returns. */
  int (*view)(struct hookline_reader* in, const char* name, size_t most, const void** data, size_t* length);

  /* Append only below. */
};

/* A device as open() sees it. */
struct hookline_info {
  const char* address; /* "0000:01:10.0"; valid until close() */
  uint16_t vendor, device;
  uint32_t vf_index; /* UINT32_MAX: not a VF */
};

struct hookline_plugin {
  struct hookline_abi abi;

  const char* name;              /* static; [a-z0-9][a-z0-9-]*, at most 31 bytes; the file is NAME.so */
  const char* version;           /* static; the plugin's own, for people */
  const char* summary;           /* static; one line */
  const char* model;             /* static; migration owner: reverse domain, e.g. "com.intel/82576-vf"; else NULL */
  /* static; migration owner: the state version save() emits, opaque ASCII, at most 4096 bytes; else NULL. With a parameter that
   * is HOOKLINE_PARAMETER_VERSION its init value. */
  const char* migration_version;

  const struct hookline_device_id* devices; /* static; what it serves; NULL: every device */
  /* static; what the plugin traps. A plugin that passes unknown operations (UNKNOWN_PASS) and has no ranges traps nothing and is
   * shown every access that others of its chain trap, in its place of the chain. */
  const struct hookline_range* ranges;
  const struct hookline_register* registers; /* static */
  const struct hookline_key* keys;          /* static */
  uint32_t nr_devices, nr_ranges, nr_registers, nr_keys;

  struct hookline_program stop;  /* static; run by the kernel on the way out of RUNNING: afterwards the device is quiet */
  struct hookline_program start; /* static; on the way into RUNNING; undoes stop */
  struct hookline_program reset; /* static; after each reset: what the function's own reset leaves behind; may not wait */

  uint32_t ops_known;   /* HOOKLINE_OPS_KNOWN of the plugin's build */
  uint32_t unknown_op;  /* HOOKLINE_UNKNOWN_* */
  uint32_t claims;      /* HOOKLINE_CLAIM_* */
  uint32_t shadow_size; /* bytes, at most 65536 */
  uint64_t max_state;   /* upper bound of the values its save() puts, in bytes; the host adds for names and framing */
  uint32_t ioctls;      /* bit n: wants ioctl VFIO_BASE + n */
  uint32_t features;    /* bit n: wants device feature n */

  /* Required. *self is the plugin's, handed to every other callback. values[i] belongs to keys[i], valid until close().
   * host, dev and info are valid until close(). */
  int (*open)(const struct hookline_host* host, struct hookline_device* dev, const struct hookline_info* info,
              const struct hookline_value* values, void** self);
  /* Required. The device may be gone. */
  void (*close)(void* self);
  /* Optional. */
  int (*access)(void* self, struct hookline_access* access);
  int (*ioctl)(void* self, struct hookline_ioctl* request);
  void (*event)(void* self, const struct hookline_event* event);
  /* Required of a migration owner; optional for others, which add sections of their own: all three or none. Each call of
   * save() makes one section, each call of load() gets one, in the same order. */
  int (*save)(void* self, struct hookline_writer* out);
  int (*load)(void* self, struct hookline_reader* in);
  int (*apply)(void* self);

  /* Since ABI 1.1. */
  const struct hookline_parameter* parameters; /* static; of a migration owner only */
  uint32_t nr_parameters;                      /* at most HOOKLINE_MAX_PARAMETERS */
  uint32_t reserved;
  /* static; migration owner: the state versions load() takes, separated by '|', at most 255 bytes; what it can emit is among
   * them. NULL: migration_version alone. */
  const char* reads;

  /* Since ABI 1.2. Optional, all three or none, of a migration owner only: state too large to be kept until the trailer. */

  /* Puts at most one section, of what a destination does not have yet. Called in rounds: while the device runs (PRE_COPY), as long
   * as the VMM reads; then with BULK_STOPPED until it answers 0; then comes save(). MORE: call again, there is more now, also if
   * nothing was put. 0: that was all for now. In PRE_COPY the host asks no more once it has sent four times max_bulk. */
  int (*save_bulk)(void* self, struct hookline_writer* out, uint32_t flags);
  /* After save_bulk(): bytes it has still to put. *initial: of the first round, falls to 0 and never grows; *dirty: changed since they
   * were put, as far as the plugin knows. Pages that were touched since the host adds itself. */
  int (*bulk_sizes)(void* self, uint64_t* initial, uint64_t* dirty);
  /* Each section of save_bulk() as it arrives and its checksum holds: before the trailer, so that a stream may still turn out to be
   * damaged. Then the device is reset; its reset program must leave nothing of it. */
  int (*load_bulk)(void* self, struct hookline_reader* in, uint32_t flags);
  uint64_t max_bulk; /* upper bound of the values one complete pass of save_bulk() puts, in bytes; not 0 */

  /* Append only below. */
};

/* The symbol. */
#define HOOKLINE_PLUGIN_SYMBOL "hookline_plugin_v1"
#if defined(__GNUC__)
#define HOOKLINE_EXPORT __attribute__((visibility("default")))
#else
#define HOOKLINE_EXPORT
#endif
extern HOOKLINE_EXPORT const struct hookline_plugin hookline_plugin_v1;

/* For the first member of a plugin object in C. */
#define HOOKLINE_ABI                                                                                                \
  .abi = {.magic = HOOKLINE_ABI_MAGIC, .major = HOOKLINE_ABI_MAJOR, .minor = HOOKLINE_ABI_MINOR,                      \
          .size = sizeof(struct hookline_plugin)}

#ifdef __cplusplus
}
#endif

#endif /* HOOKLINE_PLUGIN_H */
