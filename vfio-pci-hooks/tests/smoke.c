// SPDX-License-Identifier: Apache-2.0
/*
 * Smoke test of vfio-pci-hooks with two functions of one kind: a VFIO client on a
 * type 1 container, and workers, in one process. Run by tests/smoke.
 *
 *	smoke ADDRESS ADDRESS [SECONDS]		for example 0000:01:10.0 0000:01:10.2
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../include/uapi/linux/vfio_pci_hooks.h"

#define BAR0	VFIO_PCI_BAR0_REGION_INDEX
#define AT(region, offset)	(((uint64_t)(region) << 40) + (offset))
#define PAGE	4096
#define SHADOW	64
#define PAYLOAD	(3 * 1024 * 1024 + 12345)
/* A register of the 82576 VF that reads back what is written: VTEIMS in page 1. */
#define EITR0	0x1680

static int failures;
static int control;

#define CHECK(condition) check(condition, #condition, __LINE__)
static bool check(bool ok, const char *text, int line)
{
	if (!ok) {
		printf("smoke.c:%d: failed: %s (errno %s)\n", line, text, strerror(errno));
		failures++;
	}
	return ok;
}

static void die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

/* How much longer everything may take on this kernel. */
static unsigned int slowness(void)
{
	const char *text = getenv("HOOKLINE_SLOWNESS");

	return text && atoi(text) > 0 ? atoi(text) : 1;
}

/* On a slow kernel, so many of its own, longer ones. */
static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (t.tv_sec * 1000ull + t.tv_nsec / 1000000) / slowness();
}

/* --------------------------------------------------------------------- sysfs */

static int put(const char *text, const char *format, ...)
{
	char path[256];
	va_list ap;
	int fd, ret;

	va_start(ap, format);
	vsnprintf(path, sizeof(path), format, ap);
	va_end(ap);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -1;
	ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
	close(fd);
	return ret;
}

static unsigned long sysfs_number(const char *bdf, const char *name)
{
	unsigned long value = 0;
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%lx", &value) != 1)
		die(path);
	fclose(f);
	return value;
}

static void bind_driver(const char *bdf)
{
	if (put("vfio-pci-hooks", "/sys/bus/pci/devices/%s/driver_override", bdf) ||
	    put(bdf, "/sys/bus/pci/drivers_probe"))
		die("bind");
}

static void unbind_driver(const char *bdf)
{
	if (put(bdf, "/sys/bus/pci/drivers/vfio-pci-hooks/unbind"))
		die("unbind");
}

static struct vfio_pci_hooks_address address_of(const char *bdf)
{
	unsigned int domain, bus, device, function;
	struct vfio_pci_hooks_address a = {};

	sscanf(bdf, "%x:%x:%x.%x", &domain, &bus, &device, &function);
	a.domain = domain;
	a.bus = bus;
	a.devfn = device << 3 | function;
	return a;
}

/* ---------------------------------------------------------------- VFIO client */

struct client {
	int container, group, device;
};

static void client_open(struct client *c, const char *bdf)
{
	char path[256], link[256], *group;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		die(path);
	link[n] = 0;
	group = strrchr(link, '/') + 1;
	snprintf(path, sizeof(path), "/dev/vfio/%s", group);
	c->container = open("/dev/vfio/vfio", O_RDWR);
	c->group = open(path, O_RDWR);
	if (c->container < 0 || c->group < 0)
		die(path);
	if (ioctl(c->group, VFIO_GROUP_SET_CONTAINER, &c->container) ||
	    ioctl(c->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		die("container");
	c->device = ioctl(c->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (c->device < 0)
		die("device");
}

static void client_close(struct client *c)
{
	close(c->device);
	close(c->group);
	close(c->container);
}

static int set_state(struct client *c, uint32_t state)
{
	struct {
		struct vfio_device_feature feature;
		struct vfio_device_feature_mig_state mig;
	} arg = {
		.feature = { sizeof(arg), VFIO_DEVICE_FEATURE_SET |
					  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE },
		.mig = { state, -1 },
	};

	if (ioctl(c->device, VFIO_DEVICE_FEATURE, &arg))
		return -errno;
	return arg.mig.data_fd;
}

static uint32_t get_state(struct client *c)
{
	struct {
		struct vfio_device_feature feature;
		struct vfio_device_feature_mig_state mig;
	} arg = {
		.feature = { sizeof(arg), VFIO_DEVICE_FEATURE_GET |
					  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE },
	};

	CHECK(!ioctl(c->device, VFIO_DEVICE_FEATURE, &arg));
	return arg.mig.device_state;
}

static uint32_t peek(struct client *c, uint32_t offset)
{
	uint32_t value = 0xdeadbeef;

	CHECK(pread(c->device, &value, 4, AT(BAR0, offset)) == 4);
	return value;
}

static void poke(struct client *c, uint32_t offset, uint32_t value)
{
	CHECK(pwrite(c->device, &value, 4, AT(BAR0, offset)) == 4);
}

struct region {
	struct vfio_region_info info;
	uint8_t caps[1024];
};

static void region_info(struct client *c, unsigned int index, struct region *r)
{
	memset(r, 0, sizeof(*r));
	r->info.argsz = sizeof(*r);
	r->info.index = index;
	CHECK(!ioctl(c->device, VFIO_DEVICE_GET_REGION_INFO, r));
}

static struct vfio_region_info_cap_sparse_mmap *sparse_of(struct region *r)
{
	uint32_t offset = r->info.flags & VFIO_REGION_INFO_FLAG_CAPS ? r->info.cap_offset : 0;

	while (offset) {
		struct vfio_info_cap_header *header = (void *)((uint8_t *)r + offset);

		if (header->id == VFIO_REGION_INFO_CAP_SPARSE_MMAP)
			return (void *)header;
		offset = header->next;
	}
	return NULL;
}

/* --------------------------------------------------------------------- worker */

enum misbehave { GOOD, HANG_ON_ACCESS, DIE_ON_ACCESS, FAIL_SAVE, REFUSE_LOAD };

/*
 * Toy device: a trapped write of offset 0x40 is kept in the shadow and handled,
 * and a read of it comes from there; everything else passes.
 */
struct worker {
	const char *bdf;
	int channel, session;
	pthread_t thread;
	volatile enum misbehave misbehave;
	struct vfio_pci_hooks_slot *slots;
	uint32_t *shadow;
	uint8_t *stream;
	volatile uint32_t resets, states, accesses, sessions, again, last_state;
	volatile int end;		/* errno that ended the last session */
	size_t saved, loaded;
	uint32_t checksum, expected;
};

static void *map(int fd, uint64_t offset, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

	if (p == MAP_FAILED)
		die("mmap of a session");
	return p;
}

static uint8_t toy(size_t i)
{
	return i * 7 + (i >> 9);
}

static void worker_save(struct worker *w, struct vfio_pci_hooks_slot *s)
{
	size_t n = PAYLOAD + SHADOW - w->saved;
	uint8_t *slice = w->stream + s->offset;

	if (s->flags & VFIO_PCI_HOOKS_REQ_BEGIN) {
		w->saved = 0;
		n = PAYLOAD + SHADOW;
	}
	if (s->index == VFIO_PCI_HOOKS_PHASE_PRE_COPY) {
		/* Eight bytes that say who we are. */
		memcpy(slice, "SMOKE-01", 8);
		s->answer_length = 8;
		s->answer_flags = VFIO_PCI_HOOKS_ANSWER_END;
		return;
	}
	if (w->misbehave == FAIL_SAVE) {
		s->answer = -EBADMSG;
		return;
	}
	if (n > s->length)
		n = s->length;
	for (size_t i = 0; i < n; i++)
		slice[i] = w->saved + i < SHADOW ? ((uint8_t *)w->shadow)[w->saved + i] :
						  toy(w->saved + i);
	w->saved += n;
	s->answer_length = n;
	s->answer_flags = w->saved == PAYLOAD + SHADOW ? VFIO_PCI_HOOKS_ANSWER_END : 0;
}

static void worker_load(struct worker *w, struct vfio_pci_hooks_slot *s)
{
	static uint8_t shadow[SHADOW];
	const uint8_t *slice = w->stream + s->offset;

	if (s->flags & VFIO_PCI_HOOKS_REQ_BEGIN)
		w->loaded = 0;
	for (size_t i = 0; i < s->length; i++, w->loaded++) {
		size_t at = w->loaded - 8;

		if (w->loaded < 8) {
			if (slice[i] != "SMOKE-01"[w->loaded])
				s->answer = -EPROTO;
		} else if (at < SHADOW) {
			shadow[at] = slice[i];
		} else if (slice[i] != toy(at)) {
			s->answer = -EBADMSG;
		}
	}
	if (w->misbehave == REFUSE_LOAD)
		s->answer = -ESTALE;
	if (w->loaded == 8 + PAYLOAD + SHADOW && !s->answer) {
		struct vfio_pci_hooks_step step = {
			.op = VFIO_PCI_HOOKS_STEP_WRITE, .width = 4, .offset = EITR0,
			.value = 0x40,
		};
		struct vfio_pci_hooks_start_once once = {
			.argsz = sizeof(once),
			.program = { 1, 0, (uintptr_t)&step },
		};

		CHECK(!ioctl(w->session, VFIO_PCI_HOOKS_START_ONCE, &once));
		memcpy(w->shadow, shadow, SHADOW);
		s->answer_flags = VFIO_PCI_HOOKS_ANSWER_END;
	}
}

static void worker_request(struct worker *w, struct vfio_pci_hooks_slot *s)
{
	s->answer_seq = s->seq;
	s->answer = VFIO_PCI_HOOKS_HANDLED;
	s->answer_length = 0;
	s->answer_flags = 0;
	s->initial_bytes = 0;
	s->dirty_bytes = 0;
	switch (s->op) {
	case VFIO_PCI_HOOKS_REQ_READ:
	case VFIO_PCI_HOOKS_REQ_WRITE:
		w->accesses++;
		s->answer_length = s->length;
		if (s->offset != 0x40)
			s->answer = VFIO_PCI_HOOKS_PASS;
		else if (s->op == VFIO_PCI_HOOKS_REQ_READ)
			memcpy(s->data, &w->shadow[0], s->length);
		else
			memcpy(&w->shadow[0], s->data, s->length);
		break;
	case VFIO_PCI_HOOKS_REQ_SAVE:
		worker_save(w, s);
		break;
	case VFIO_PCI_HOOKS_REQ_LOAD:
		worker_load(w, s);
		break;
	default:
		s->answer = VFIO_PCI_HOOKS_PASS;
	}
}

static __thread sigjmp_buf bus_error;
static __thread bool bus_error_expected;

static void on_bus_error(int signal)
{
	if (!bus_error_expected)
		_exit(3);
	siglongjmp(bus_error, 1);
}

static int worker_session(struct worker *w)
{
	struct vfio_pci_hooks_next next = {
		.argsz = sizeof(next),
		.answered = VFIO_PCI_HOOKS_NO_SLOT,
	};

	for (;;) {
		struct vfio_pci_hooks_slot *s;

		next.argsz = sizeof(next);
		next.timeout_ms = 20000;
		if (ioctl(w->session, VFIO_PCI_HOOKS_NEXT, &next)) {
			if (errno == EINVAL && next.answered != VFIO_PCI_HOOKS_NO_SLOT) {
				next.answered = VFIO_PCI_HOOKS_NO_SLOT;
				continue;
			}
			return errno;
		}
		next.answered = VFIO_PCI_HOOKS_NO_SLOT;
		if (next.what == VFIO_PCI_HOOKS_NEXT_EVENT) {
			if (next.event == VFIO_PCI_HOOKS_EVENT_RESET)
				w->resets++;
			else
				w->states++, w->last_state = next.to;
			continue;
		}
		s = &w->slots[next.slot];
		if (s->op <= VFIO_PCI_HOOKS_REQ_WRITE && w->misbehave == DIE_ON_ACCESS) {
			/* Half an effect, and gone. */
			w->misbehave = GOOD;
			w->shadow[0] = 0x0bad0bad;
			return EOWNERDEAD;
		}
		if (s->op <= VFIO_PCI_HOOKS_REQ_WRITE && w->misbehave == HANG_ON_ACCESS) {
			while (w->misbehave == HANG_ON_ACCESS)
				usleep(1000);
			/* Its mappings are gone: touching them would be a SIGBUS. */
			next.answered = next.slot;
			continue;
		}
		worker_request(w, s);
		next.answered = next.slot;
	}
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		struct vfio_pci_hooks_wait_open wait = { .argsz = sizeof(wait) };

		if (ioctl(w->channel, VFIO_PCI_HOOKS_WAIT_OPEN, &wait)) {
			CHECK(errno == ENODEV);
			return NULL;
		}
		w->session = wait.fd;
		w->again = wait.flags & VFIO_PCI_HOOKS_SESSION_AGAIN;
		w->slots = map(wait.fd, VFIO_PCI_HOOKS_MMAP_SLOTS,
			       VFIO_PCI_HOOKS_SLOTS * sizeof(*w->slots));
		w->shadow = map(wait.fd, VFIO_PCI_HOOKS_MMAP_SHADOW, PAGE);
		w->stream = map(wait.fd, VFIO_PCI_HOOKS_MMAP_STREAM, VFIO_PCI_HOOKS_STREAM_SIZE);
		w->sessions++;
		/* A revoked session's mappings are gone under the worker's hands. */
		bus_error_expected = true;
		w->end = sigsetjmp(bus_error, 1) ? EFAULT : worker_session(w);
		munmap(w->slots, VFIO_PCI_HOOKS_SLOTS * sizeof(*w->slots));
		munmap(w->shadow, PAGE);
		munmap(w->stream, VFIO_PCI_HOOKS_STREAM_SIZE);
		close(w->session);
	}
}

static int attach(const char *bdf)
{
	struct vfio_pci_hooks_attach a = { .argsz = sizeof(a), .address = address_of(bdf) };

	return ioctl(control, VFIO_PCI_HOOKS_ATTACH, &a) ? -errno : a.fd;
}

static void worker_start(struct worker *w, const char *bdf)
{
	memset(w, 0, sizeof(*w));
	w->bdf = bdf;
	w->channel = attach(bdf);
	if (w->channel < 0)
		die("attach");
	pthread_create(&w->thread, NULL, worker_run, w);
}

static void worker_await_session(struct worker *w, uint32_t nr)
{
	for (int i = 0; i < 3000 && w->sessions < nr; i++)
		usleep(1000);
	CHECK(w->sessions >= nr);
}

/* ----------------------------------------------------------------- definition */

static int define_with(const char *bdf, uint32_t flags, const char *const *names, unsigned int nr)
{
	struct vfio_pci_hooks_handler handlers[8] = {};
	struct vfio_pci_hooks_range range = {
		.region = BAR0,
		.ops = VFIO_PCI_HOOKS_OP_READ | VFIO_PCI_HOOKS_OP_WRITE,
		.length = PAGE,
	};
	struct vfio_pci_hooks_step stop[] = {
		{ .op = VFIO_PCI_HOOKS_STEP_SAVE, .width = 4, .slot = 3, .offset = EITR0 },
		{ .op = VFIO_PCI_HOOKS_STEP_WRITE, .width = 4, .offset = EITR0, .value = 0 },
		{ .op = VFIO_PCI_HOOKS_STEP_POLL, .width = 4, .offset = EITR0, .mask = ~0u,
		  .timeout_us = 1000 },
	};
	struct vfio_pci_hooks_step start[] = {
		{ .op = VFIO_PCI_HOOKS_STEP_RESTORE, .width = 4, .slot = 3, .offset = EITR0 },
	};
	struct vfio_pci_hooks_step reset[] = {
		{ .op = VFIO_PCI_HOOKS_STEP_FILL, .width = 4, .offset = EITR0, .mask = 4 },
	};
	struct vfio_pci_hooks_define d = {
		.argsz = sizeof(d),
		.flags = flags,
		.address = address_of(bdf),
		.vendor = sysfs_number(bdf, "vendor"),
		.device = sysfs_number(bdf, "device"),
		.guest_memory = VFIO_PCI_HOOKS_MEMORY_READ,
		.access_limit_ms = 300 * slowness(),
		.state_limit_ms = 2000 * slowness(),
		.shadow_size = SHADOW,
		.nr_handlers = nr,
		.nr_ranges = 1,
		.handlers = (uintptr_t)handlers,
		.ranges = (uintptr_t)&range,
		.max_state = 8 << 20,
		.stop = { 3, 0, (uintptr_t)stop },
		.start = { 1, 0, (uintptr_t)start },
		.reset = { 1, 0, (uintptr_t)reset },
	};
	bool channel = false;

	for (unsigned int i = 0; i < nr; i++) {
		strcpy(handlers[i].name, names[i]);
		channel |= !strcmp(names[i], VFIO_PCI_HOOKS_CHANNEL_NAME);
	}
	if (!channel) {
		d.nr_ranges = 0;
		d.shadow_size = 0;
	}
	return ioctl(control, VFIO_PCI_HOOKS_DEFINE, &d) ? -errno : 0;
}

static int define(const char *bdf, uint32_t flags)
{
	const char *channel[] = { VFIO_PCI_HOOKS_CHANNEL_NAME };

	return define_with(bdf, flags, channel, 1);
}

static int undefine(const char *bdf)
{
	struct vfio_pci_hooks_undefine u = { .argsz = sizeof(u), .address = address_of(bdf) };

	return ioctl(control, VFIO_PCI_HOOKS_UNDEFINE, &u) ? -errno : 0;
}

static struct vfio_pci_hooks_status status_of(const char *bdf)
{
	struct vfio_pci_hooks_status s = { .argsz = sizeof(s), .address = address_of(bdf) };

	CHECK(!ioctl(control, VFIO_PCI_HOOKS_GET_STATUS, &s));
	return s;
}

/* ---------------------------------------------------------------------- tests */

static void test_plain(const char *bdf)
{
	struct client c;
	struct region r;
	void *p;

	printf("plain: no definition\n");
	bind_driver(bdf);
	CHECK(define(bdf, 0) == -EBUSY);
	CHECK(attach(bdf) == -ENOENT);
	client_open(&c, bdf);
	region_info(&c, BAR0, &r);
	CHECK(r.info.flags == (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			       VFIO_REGION_INFO_FLAG_MMAP));
	CHECK(!sparse_of(&r));
	p = mmap(NULL, r.info.size, PROT_READ | PROT_WRITE, MAP_SHARED, c.device, r.info.offset);
	CHECK(p != MAP_FAILED);
	CHECK(*(volatile uint32_t *)((uint8_t *)p + 8) == peek(&c, 8));
	munmap(p, r.info.size);
	CHECK(set_state(&c, VFIO_DEVICE_STATE_STOP) == -ENOTTY);
	CHECK(!ioctl(c.device, VFIO_DEVICE_RESET));
	client_close(&c);
	unbind_driver(bdf);
}

static void test_definition(const char *bdf)
{
	const char *none[] = { "no-such-handler" };
	const char *old[] = { "sample-old", VFIO_PCI_HOOKS_CHANNEL_NAME };
	const char *twice[] = { VFIO_PCI_HOOKS_CHANNEL_NAME, VFIO_PCI_HOOKS_CHANNEL_NAME };

	printf("definition\n");
	CHECK(undefine(bdf) == -ENOENT);
	CHECK(define_with(bdf, 0, none, 1) == -ENOENT);
	CHECK(define_with(bdf, 0, old, 2) == -EOPNOTSUPP);
	CHECK(define_with(bdf, 0, twice, 2) == -EINVAL);
	CHECK(define(bdf, 0x80) == -EINVAL);
	CHECK(define(bdf, 0) == 0);
	CHECK(define(bdf, 0) == 0);
	CHECK(attach(bdf) == -ENXIO);
	CHECK(undefine(bdf) == 0);
}

static void test_trap(const char *bdf)
{
	struct vfio_device_ioeventfd eventfd = { .argsz = sizeof(eventfd), .flags = 4,
						 .offset = AT(BAR0, 8), .fd = -1 };
	struct vfio_region_info_cap_sparse_mmap *sparse;
	uint8_t big[PAGE + 64], twice[PAGE + 64];
	struct vfio_pci_hooks_status s;
	struct worker w;
	struct client c;
	struct region r;
	uint32_t n;
	void *p;

	printf("trap\n");
	CHECK(define(bdf, 0) == 0);
	bind_driver(bdf);
	CHECK(define(bdf, 0) == -EBUSY);
	CHECK(undefine(bdf) == -EBUSY);
	worker_start(&w, bdf);
	CHECK(attach(bdf) == -EBUSY);
	client_open(&c, bdf);
	worker_await_session(&w, 1);

	region_info(&c, BAR0, &r);
	sparse = sparse_of(&r);
	CHECK(sparse && sparse->nr_areas == 1 && sparse->areas[0].offset == PAGE &&
	      sparse->areas[0].size == r.info.size - PAGE);
	p = mmap(NULL, r.info.size, PROT_READ, MAP_SHARED, c.device, r.info.offset);
	CHECK(p == MAP_FAILED && errno == EINVAL);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, c.device, r.info.offset + PAGE);
	CHECK(p != MAP_FAILED);
	munmap(p, PAGE);
	CHECK(ioctl(c.device, VFIO_DEVICE_IOEVENTFD, &eventfd) && errno == EINVAL);

	poke(&c, 0x40, 0x12345678);
	CHECK(peek(&c, 0x40) == 0x12345678);
	CHECK(w.shadow[0] == 0x12345678);
	n = w.accesses;
	CHECK(peek(&c, 8) == peek(&c, 8));
	CHECK(w.accesses == n + 2);
	peek(&c, PAGE);
	CHECK(w.accesses == n + 2);

	/* Across the edge: 64 bytes trapped, in units of 8. */
	CHECK(pread(c.device, big, 128, AT(BAR0, PAGE - 64)) == 128);
	CHECK(w.accesses == n + 2 + 8);
	CHECK(pread(c.device, big, 3, AT(BAR0, 0x41)) == 3);
	CHECK(w.accesses == n + 2 + 8 + 2);
	CHECK(pread(c.device, twice, sizeof(twice), AT(BAR0, r.info.size - 16)) == 16);
	CHECK(pread(c.device, twice, 16, AT(BAR0, r.info.size)) == -1 && errno == EINVAL);

	s = status_of(bdf);
	CHECK(s.flags == (VFIO_PCI_HOOKS_STATUS_BOUND | VFIO_PCI_HOOKS_STATUS_OPEN |
			  VFIO_PCI_HOOKS_STATUS_ATTACHED | VFIO_PCI_HOOKS_STATUS_SERVED));
	CHECK(s.accesses == w.accesses && !s.missed);

	client_close(&c);
	usleep(50000);
	CHECK(w.end == ESHUTDOWN);
	/* The next open starts anew. */
	client_open(&c, bdf);
	worker_await_session(&w, 2);
	CHECK(!w.again);
	CHECK(peek(&c, 0x40) == 0);
	client_close(&c);
	unbind_driver(bdf);
	pthread_join(w.thread, NULL);
	close(w.channel);
	CHECK(undefine(bdf) == 0);
}

static bool faults(volatile uint32_t *p)
{
	bus_error_expected = true;
	if (sigsetjmp(bus_error, 1))
		return true;
	(void)*p;
	bus_error_expected = false;
	return false;
}

static void test_worker_access(const char *bdf)
{
	struct vfio_pci_hooks_wait_open wait = { .argsz = sizeof(wait) };
	struct vfio_pci_hooks_rw rw = { .argsz = sizeof(rw), .region = BAR0, .length = 4 };
	struct vfio_pci_hooks_next next = { .argsz = sizeof(next), .answered = -1 };
	struct vfio_iommu_type1_dma_map dma = {
		.argsz = sizeof(dma), .flags = 3, .iova = 0x100000, .size = 2 * PAGE };
	uint32_t value = 0, *bar, *slots, *memory;
	struct client c;
	int channel;

	printf("worker's access\n");
	CHECK(define(bdf, 0) == 0);
	bind_driver(bdf);
	channel = attach(bdf);
	CHECK(ioctl(channel, VFIO_PCI_HOOKS_WAIT_OPEN,
		    &(struct vfio_pci_hooks_wait_open){ .argsz = sizeof(wait),
			.flags = VFIO_PCI_HOOKS_WAIT_NONBLOCK }) && errno == EAGAIN);
	client_open(&c, bdf);
	CHECK(poll(&(struct pollfd){ channel, POLLIN }, 1, 0) == 1);
	CHECK(!ioctl(channel, VFIO_PCI_HOOKS_WAIT_OPEN, &wait));
	CHECK(poll(&(struct pollfd){ channel, POLLIN }, 1, 0) == 0);

	memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory[PAGE / 4 - 1] = 0xcafe;
	dma.vaddr = (uintptr_t)memory;
	CHECK(!ioctl(c.container, VFIO_IOMMU_MAP_DMA, &dma));

	poke(&c, EITR0, 0x40);
	rw.offset = EITR0;
	rw.data = (uintptr_t)&value;
	CHECK(!ioctl(wait.fd, VFIO_PCI_HOOKS_REGION_RW, &rw) && value == 0x40);
	value = 0x80;
	rw.flags = VFIO_PCI_HOOKS_RW_WRITE;
	CHECK(!ioctl(wait.fd, VFIO_PCI_HOOKS_REGION_RW, &rw));
	CHECK(peek(&c, EITR0) == 0x80);
	rw.flags = 0;
	rw.region = VFIO_PCI_CONFIG_REGION_INDEX;
	rw.offset = 0;
	CHECK(!ioctl(wait.fd, VFIO_PCI_HOOKS_REGION_RW, &rw) && (value & 0xffff) == 0x8086);
	rw.data = 16;
	CHECK(ioctl(wait.fd, VFIO_PCI_HOOKS_REGION_RW, &rw) && errno == EFAULT);
	rw.data = (uintptr_t)&value;
	rw.region = 0;
	rw.offset = 0x100000 + PAGE - 4;
	CHECK(!ioctl(wait.fd, VFIO_PCI_HOOKS_IOVA_RW, &rw) && value == 0xcafe);
	rw.offset = 0x900000;
	CHECK(ioctl(wait.fd, VFIO_PCI_HOOKS_IOVA_RW, &rw));
	rw.flags = VFIO_PCI_HOOKS_RW_WRITE;
	CHECK(ioctl(wait.fd, VFIO_PCI_HOOKS_IOVA_RW, &rw) && errno == EPERM);

	bar = map(wait.fd, VFIO_PCI_HOOKS_MMAP_BAR(0), 4 * PAGE);
	slots = map(wait.fd, VFIO_PCI_HOOKS_MMAP_SLOTS, PAGE);
	CHECK(!faults(bar) && !faults(slots));
	CHECK(bar[EITR0 / 4] == 0x80);
	CHECK(!ioctl(c.device, VFIO_DEVICE_RESET));
	CHECK(!faults(bar) && bar[EITR0 / 4] == 0);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, wait.fd, VFIO_PCI_HOOKS_MMAP_SLOTS) ==
	      MAP_FAILED);
	CHECK(poll(&(struct pollfd){ wait.fd, POLLIN }, 1, 0) == 1);
	next.timeout_ms = 0;
	CHECK(!ioctl(wait.fd, VFIO_PCI_HOOKS_NEXT, &next) && next.event == VFIO_PCI_HOOKS_EVENT_RESET);
	next.answered = 3;
	CHECK(ioctl(wait.fd, VFIO_PCI_HOOKS_NEXT, &next) && errno == EINVAL);
	next.answered = -1;
	next.timeout_ms = 0;
	CHECK(ioctl(wait.fd, VFIO_PCI_HOOKS_NEXT, &next) && errno == ETIME);

	client_close(&c);
	CHECK(faults(bar) && faults(slots));
	rw.offset = 0;
	CHECK(ioctl(wait.fd, VFIO_PCI_HOOKS_REGION_RW, &rw) && errno == ESHUTDOWN);
	CHECK(ioctl(wait.fd, VFIO_PCI_HOOKS_NEXT, &next) && errno == ESHUTDOWN);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, wait.fd, VFIO_PCI_HOOKS_MMAP_SLOTS) ==
	      MAP_FAILED && errno == ESHUTDOWN);
	unbind_driver(bdf);
	CHECK(ioctl(channel, VFIO_PCI_HOOKS_WAIT_OPEN, &wait) && errno == ENODEV);
	/* Descriptors and mappings that outlive everything. */
	close(channel);
	CHECK(undefine(bdf) == 0);
	CHECK(faults(bar));
	munmap(bar, 4 * PAGE);
	munmap(slots, PAGE);
	munmap(memory, 2 * PAGE);
	close(wait.fd);
}

static void test_faults(const char *bdf)
{
	uint64_t begin;
	struct worker w;
	struct client c;
	uint32_t value;

	printf("worker that hangs, dies, is gone\n");
	CHECK(define(bdf, VFIO_PCI_HOOKS_DEFINE_MIGRATION) == 0);
	bind_driver(bdf);
	worker_start(&w, bdf);
	client_open(&c, bdf);
	worker_await_session(&w, 1);
	poke(&c, 0x40, 0x1111);

	/* Dies in the middle of an access: its replacement does it, from before. */
	w.misbehave = DIE_ON_ACCESS;
	CHECK(peek(&c, 0x40) == 0x1111);
	worker_await_session(&w, 2);
	CHECK(w.again);
	CHECK(!(status_of(bdf).flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE));

	/* Hangs: revoked after the limit, the access passes, and that is remembered. */
	w.misbehave = HANG_ON_ACCESS;
	begin = now_ms();
	peek(&c, 8);
	/* Not before the limit of 300 ms, and not for ever; a busy host adds seconds. */
	CHECK(now_ms() - begin >= 290 && now_ms() - begin < 10000);
	CHECK(status_of(bdf).revoked == 1 && status_of(bdf).missed == 1);
	CHECK(status_of(bdf).flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
	w.misbehave = GOOD;
	worker_await_session(&w, 3);
	CHECK(w.end == ECANCELED);
	CHECK(peek(&c, 0x40) == 0x1111);
	CHECK(set_state(&c, VFIO_DEVICE_STATE_PRE_COPY) == -ENODATA);
	CHECK(get_state(&c) == VFIO_DEVICE_STATE_RUNNING);
	/* Stopping needs no worker; saving says what is wrong by read(). */
	value = set_state(&c, VFIO_DEVICE_STATE_STOP_COPY);
	CHECK((int)value >= 0);
	CHECK(read(value, &value, 1) == -1 && errno == ENODATA);
	CHECK(!ioctl(c.device, VFIO_DEVICE_RESET));
	CHECK(get_state(&c) == VFIO_DEVICE_STATE_RUNNING);
	CHECK(!(status_of(bdf).flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE));
	CHECK(peek(&c, 0x40) == 0);
	CHECK(w.resets == 1);

	/* Unbinding waits for the VMM; here nothing has it open. */
	client_close(&c);
	unbind_driver(bdf);
	pthread_join(w.thread, NULL);
	close(w.channel);

	/* No worker at all: the limit counts once, from the open. */
	CHECK(define(bdf, VFIO_PCI_HOOKS_DEFINE_FAIL) == 0);
	bind_driver(bdf);
	client_open(&c, bdf);
	usleep(320000 * slowness());
	begin = now_ms();
	for (int i = 0; i < 20; i++)
		CHECK(pread(c.device, &value, 4, AT(BAR0, 8)) == -1 && errno == EIO);
	CHECK(now_ms() - begin < 20 * 300 / 2);
	CHECK(pread(c.device, &value, 4, AT(BAR0, PAGE)) == 4);
	CHECK(!(status_of(bdf).flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE));
	client_close(&c);
	unbind_driver(bdf);
	CHECK(undefine(bdf) == 0);
}

static size_t drain(int fd, uint8_t *to, size_t piece)
{
	size_t done = 0;
	ssize_t n;

	while ((n = read(fd, to + done, piece)) > 0)
		done += n;
	CHECK(n == 0 || errno == ENOMSG);
	return done;
}

static void test_migration(const char *from, const char *to)
{
	struct vfio_precopy_info info = { .argsz = sizeof(info) };
	uint8_t *stream = malloc(2 * PAYLOAD);
	size_t length, precopy;
	struct worker a, b;
	struct client x, y;
	int fd;

	printf("migration\n");
	CHECK(define(from, VFIO_PCI_HOOKS_DEFINE_MIGRATION) == 0);
	CHECK(define(to, VFIO_PCI_HOOKS_DEFINE_MIGRATION) == 0);
	bind_driver(from);
	bind_driver(to);
	worker_start(&a, from);
	worker_start(&b, to);
	client_open(&x, from);
	client_open(&y, to);
	worker_await_session(&a, 1);
	worker_await_session(&b, 1);

	poke(&x, 0x40, 0x00c0ffee);
	poke(&x, EITR0, 0x20);
	/* Stop and cont. */
	CHECK(set_state(&x, VFIO_DEVICE_STATE_STOP) == -1);
	CHECK(peek(&x, EITR0) == 0);
	CHECK(set_state(&x, VFIO_DEVICE_STATE_RUNNING) == -1);
	CHECK(peek(&x, EITR0) == 0x20);

	/* Pre-copy, cancelled. */
	fd = set_state(&x, VFIO_DEVICE_STATE_PRE_COPY);
	CHECK(fd >= 0);
	CHECK(set_state(&x, VFIO_DEVICE_STATE_RUNNING) == -1);
	CHECK(read(fd, stream, 1) == -1 && errno == ENODEV);
	close(fd);

	/* And for real. */
	fd = set_state(&x, VFIO_DEVICE_STATE_PRE_COPY);
	CHECK(fd >= 0);
	CHECK(!ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &info));
	CHECK(pread(fd, stream, 1, 0) == -1 && errno == ESPIPE);
	precopy = drain(fd, stream, 3);
	CHECK(precopy == 8);
	CHECK(read(fd, stream, 1) == -1 && errno == ENOMSG);
	CHECK(set_state(&x, VFIO_DEVICE_STATE_STOP_COPY) == -1);
	CHECK(ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &info) == -1 && errno == EINVAL);
	CHECK(peek(&x, EITR0) == 0);
	length = precopy + drain(fd, stream + precopy, 70001);
	CHECK(length == 8 + PAYLOAD + SHADOW);
	CHECK(set_state(&x, VFIO_DEVICE_STATE_STOP) == -1);
	close(fd);

	fd = set_state(&y, VFIO_DEVICE_STATE_RESUMING);
	CHECK(fd >= 0);
	for (size_t i = 0, n; i < length; i += n) {
		n = i < 20 ? 1 : 100003;
		if (n > length - i)
			n = length - i;
		if (!CHECK(write(fd, stream + i, n) == (ssize_t)n))
			break;
	}
	CHECK(write(fd, stream, 0) == 0);
	CHECK(set_state(&y, VFIO_DEVICE_STATE_RUNNING) == -1);
	CHECK(write(fd, stream, 1) == -1 && errno == ENODEV);
	close(fd);
	CHECK(peek(&y, 0x40) == 0x00c0ffee);
	CHECK(peek(&y, EITR0) == 0x40);
	/* The start program of the restored device was for once. */
	CHECK(set_state(&y, VFIO_DEVICE_STATE_STOP) == -1);
	poke(&y, EITR0, 0x60);
	CHECK(set_state(&y, VFIO_DEVICE_STATE_RUNNING) == -1);
	CHECK(peek(&y, EITR0) == 0x40);
	usleep(20000);
	CHECK(b.last_state == VFIO_DEVICE_STATE_RUNNING);

	/* Incomplete: the arc fails, the state is ERROR, a reset leads out. */
	fd = set_state(&y, VFIO_DEVICE_STATE_RESUMING);
	CHECK(write(fd, stream, 1000) == 1000);
	CHECK(set_state(&y, VFIO_DEVICE_STATE_RUNNING) == -EINVAL);
	CHECK(get_state(&y) == VFIO_DEVICE_STATE_ERROR);
	CHECK(set_state(&y, VFIO_DEVICE_STATE_RUNNING) == -EIO);
	close(fd);
	CHECK(!ioctl(y.device, VFIO_DEVICE_RESET));
	CHECK(get_state(&y) == VFIO_DEVICE_STATE_RUNNING);

	/* Refused by the worker: sticky. */
	b.misbehave = REFUSE_LOAD;
	fd = set_state(&y, VFIO_DEVICE_STATE_RESUMING);
	CHECK(write(fd, stream, 1000) == -1 && errno == ESTALE);
	b.misbehave = GOOD;
	CHECK(write(fd, stream, 1000) == -1 && errno == ESTALE);
	CHECK(!ioctl(y.device, VFIO_DEVICE_RESET));
	CHECK(write(fd, stream, 1000) == -1 && errno == ECANCELED);
	close(fd);

	/* Save fails: read says so, never end of file, and the source goes on. */
	CHECK(set_state(&x, VFIO_DEVICE_STATE_RUNNING) == -1);
	CHECK(peek(&x, EITR0) == 0x20);
	a.misbehave = FAIL_SAVE;
	fd = set_state(&x, VFIO_DEVICE_STATE_STOP_COPY);
	CHECK(fd >= 0);
	CHECK(read(fd, stream, 1000) == -1 && errno == EBADMSG);
	CHECK(set_state(&x, VFIO_DEVICE_STATE_RUNNING) == -1);
	CHECK(peek(&x, 0x40) == 0x00c0ffee);
	a.misbehave = GOOD;
	close(fd);

	/* Reset while saving; file that outlives the device. */
	fd = set_state(&x, VFIO_DEVICE_STATE_STOP_COPY);
	CHECK(read(fd, stream, 1000) == 1000);
	CHECK(!ioctl(x.device, VFIO_DEVICE_RESET));
	CHECK(read(fd, stream, 1000) == -1 && errno == ECANCELED);
	close(fd);
	fd = set_state(&x, VFIO_DEVICE_STATE_STOP_COPY);
	CHECK(read(fd, stream, 1000) == 1000);
	client_close(&x);
	CHECK(read(fd, stream, 1000) == -1 && errno == ENODEV);
	client_close(&y);
	unbind_driver(from);
	unbind_driver(to);
	CHECK(read(fd, stream, 1000) == -1 && errno == ENODEV);
	close(fd);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	close(a.channel);
	close(b.channel);
	CHECK(undefine(from) == 0);
	CHECK(undefine(to) == 0);
	free(stream);
}

/* A VMM killed while it waits for a worker that hangs. */
static void test_kill(const char *bdf)
{
	struct worker w;
	uint64_t begin;
	pid_t pid;

	printf("VMM killed\n");
	CHECK(define(bdf, VFIO_PCI_HOOKS_DEFINE_MIGRATION) == 0);
	bind_driver(bdf);
	worker_start(&w, bdf);
	w.misbehave = HANG_ON_ACCESS;
	pid = fork();
	if (!pid) {
		struct client c;
		uint32_t value;

		client_open(&c, bdf);
		for (int i = 0; i < 100; i++)
			(void)!pread(c.device, &value, 4, AT(BAR0, 8));
		_exit(0);
	}
	worker_await_session(&w, 1);
	usleep(100000);
	begin = now_ms();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* The accesses that were left would have waited for 30 s. */
	CHECK(now_ms() - begin < 10000);
	w.misbehave = GOOD;
	unbind_driver(bdf);
	pthread_join(w.thread, NULL);
	close(w.channel);
	CHECK(undefine(bdf) == 0);
}

static void sample_set(const char *handler, const char *file, int value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", (unsigned int)value);
	CHECK(!put(text, "/sys/kernel/debug/vfio_pci_hooks_sample/%s/%s", handler, file));
}

/* sample-a, the worker, sample-b, in this order, at four bytes of BAR 0. */
static void test_handlers(const char *bdf)
{
	const char *chain[] = { "sample-a", VFIO_PCI_HOOKS_CHANNEL_NAME, "sample-b" };
	struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = VFIO_PCI_MSIX_IRQ_INDEX };
	struct worker w;
	struct client c;
	uint32_t value;

	printf("handlers\n");
	CHECK(define_with(bdf, 0, chain, 3) == 0);
	bind_driver(bdf);
	worker_start(&w, bdf);
	client_open(&c, bdf);
	worker_await_session(&w, 1);

	poke(&c, 0x40, 0x1234);
	CHECK(peek(&c, 0x40) == 0x1234);
	sample_set("sample-a", "read", 0);
	sample_set("sample-a", "value", 77);
	CHECK(peek(&c, 0x40) == 77);
	sample_set("sample-a", "read", -EPERM);
	CHECK(pread(c.device, &value, 4, AT(BAR0, 0x40)) == -1 && errno == EPERM);
	sample_set("sample-a", "rest", 1);
	sample_set("sample-a", "edit", 1);
	CHECK(peek(&c, 0x40) == 0x1235);
	sample_set("sample-a", "rest", 0);
	sample_set("sample-a", "read", 1);

	/* CH2: handled, and failed, for a write; the device keeps what it had. */
	sample_set("sample-a", "write", 0);
	value = 0x9999;
	CHECK(pwrite(c.device, &value, 4, AT(BAR0, 0x40)) == 4);
	sample_set("sample-a", "write", -EROFS);
	CHECK(pwrite(c.device, &value, 4, AT(BAR0, 0x40)) == -1 && errno == EROFS);
	sample_set("sample-a", "write", 1);
	CHECK(peek(&c, 0x40) == 0x1234);

	/* CH2: in their order; behind the one that handles nobody is asked. The worker handles. */
	sample_set("sample-b", "read", 0);
	sample_set("sample-b", "value", 78);
	CHECK(peek(&c, 0x40) == 0x1234);
	sample_set("sample-a", "read", 0);
	CHECK(peek(&c, 0x40) == 0x9999);
	sample_set("sample-a", "read", 1);
	sample_set("sample-b", "read", 1);

	/* CH2: pass, handled, failed for an ioctl. */
	CHECK(!ioctl(c.device, VFIO_DEVICE_GET_IRQ_INFO, &irq) && irq.count == 3);
	sample_set("sample-b", "ioctl", 0);
	irq.count = 42;
	CHECK(!ioctl(c.device, VFIO_DEVICE_GET_IRQ_INFO, &irq) && irq.count == 42);
	sample_set("sample-b", "ioctl", -ENOSPC);
	CHECK(ioctl(c.device, VFIO_DEVICE_GET_IRQ_INFO, &irq) && errno == ENOSPC);
	sample_set("sample-b", "ioctl", 1);
	client_close(&c);

	sample_set("sample-b", "open", -EACCES);
	unbind_driver(bdf);
	pthread_join(w.thread, NULL);
	close(w.channel);
	sample_set("sample-b", "open", 0);
	CHECK(undefine(bdf) == 0);
}

/* Everything at once, for a kernel that checks itself: nothing may hang or break. */
static volatile bool stress_stop;
static struct client stress_client;

static void *stress_access(void *arg)
{
	uint32_t value = (uintptr_t)arg;

	while (!stress_stop) {
		(void)!pwrite(stress_client.device, &value, 4, AT(BAR0, 0x40));
		(void)!pread(stress_client.device, &value, 4, AT(BAR0, 8));
		(void)!pread(stress_client.device, &value, 4, AT(BAR0, PAGE));
	}
	return NULL;
}

static void *stress_state(void *arg)
{
	unsigned int seed = (uintptr_t)arg;
	uint8_t bytes[4096];

	while (!stress_stop) {
		int fd = set_state(&stress_client, rand_r(&seed) % (VFIO_DEVICE_STATE_PRE_COPY_P2P + 1));

		if (fd < 0)
			continue;
		for (int i = rand_r(&seed) % 8; i > 0; i--)
			if (read(fd, bytes, sizeof(bytes)) < 0)
				(void)!write(fd, bytes, 9);
		close(fd);
	}
	return NULL;
}

static void *stress_reset(void *arg)
{
	while (!stress_stop) {
		usleep(20000);
		ioctl(stress_client.device, VFIO_DEVICE_RESET);
		put("1", "/sys/bus/pci/devices/%s/reset", (const char *)arg);
	}
	return NULL;
}

static void test_stress(const char *bdf, unsigned int seconds)
{
	uint64_t end = now_ms() + seconds * 1000ull;
	struct worker w;
	unsigned int seed = 1;

	printf("stress\n");
	CHECK(define(bdf, VFIO_PCI_HOOKS_DEFINE_MIGRATION) == 0);
	bind_driver(bdf);
	worker_start(&w, bdf);
	while (now_ms() < end) {
		pthread_t threads[5];

		stress_stop = false;
		client_open(&stress_client, bdf);
		pthread_create(&threads[0], NULL, stress_access, (void *)1);
		pthread_create(&threads[1], NULL, stress_access, (void *)2);
		pthread_create(&threads[2], NULL, stress_state, (void *)3);
		pthread_create(&threads[3], NULL, stress_state, (void *)4);
		pthread_create(&threads[4], NULL, stress_reset, (void *)bdf);
		for (int i = 0; i < 10; i++) {
			usleep(50000);
			w.misbehave = rand_r(&seed) % 3;
		}
		w.misbehave = GOOD;
		stress_stop = true;
		for (int i = 0; i < 5; i++)
			pthread_join(threads[i], NULL);
		CHECK(!ioctl(stress_client.device, VFIO_DEVICE_RESET));
		CHECK(get_state(&stress_client) == VFIO_DEVICE_STATE_RUNNING);
		client_close(&stress_client);
	}
	unbind_driver(bdf);
	pthread_join(w.thread, NULL);
	close(w.channel);
	CHECK(undefine(bdf) == 0);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3)
		return 2;
	signal(SIGBUS, on_bus_error);
	control = open("/dev/vfio-pci-hooks", O_RDWR);
	if (control < 0)
		die("/dev/vfio-pci-hooks");

	test_plain(argv[1]);
	test_definition(argv[1]);
	test_trap(argv[1]);
	test_worker_access(argv[1]);
	test_faults(argv[1]);
	test_migration(argv[1], argv[2]);
	test_kill(argv[1]);
	test_handlers(argv[1]);
	test_stress(argv[1], argc > 3 ? atoi(argv[3]) : 5);
	printf("%s\n", failures ? "FAILED" : "passed");
	return failures != 0;
}
