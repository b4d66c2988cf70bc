// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which pages of a BAR the VMM has touched since the worker asked: by its mappings,
 * which are taken away and fault back in, and by read() and write().
 *
 * While a range is tracked, a page of it is mapped only if its bit is set: a fault
 * sets the bit and maps the page under the lock that the taker of the bits holds for
 * writing, and the taker zaps the range before it answers. So an access has either
 * happened when the worker hears of its page, or it faults and is heard of next time.
 *
 * Nothing is tracked, and no memory taken, before the first question of an open.
 */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vfio_pci_hooks_priv.h"

#define VPH_TOUCHED_SHIFT	12
#define VPH_TOUCHED_MAX_BAR	(64ULL * SZ_1G)

struct vph_touched_bar {
	unsigned int nr;		/* pages of 4 KiB */
	unsigned long *touched;
	unsigned long *asked;		/* about these the worker has asked: they count */
};

/* ------------------------------------------------------------------------ marks */

static void vph_touched_set(struct vph_touched *t, struct vph_touched_bar *bar, u64 offset,
			    u64 length)
{
	u64 page, last = (offset + length - 1) >> VPH_TOUCHED_SHIFT;

	lockdep_assert_held(&t->lock);
	for (page = offset >> VPH_TOUCHED_SHIFT; page <= last && page < bar->nr; page++)
		if (!test_and_set_bit(page, bar->touched) && test_bit(page, bar->asked))
			atomic64_inc(&t->count);
}

/*
 * After an access by read() or write(), however it ended. Marked before, it could be
 * taken before it has happened.
 */
void vph_touched_mark(struct vph_device *hdev, u64 pos, u64 length)
{
	unsigned int index = VFIO_PCI_OFFSET_TO_INDEX(pos);
	struct vph_touched *t;

	if (index >= PCI_STD_NUM_BARS || !hdev->channel || !length)
		return;
	t = &hdev->channel->touched;
	if (!READ_ONCE(t->bar[index]))
		return;
	down_read(&t->lock);
	vph_touched_set(t, t->bar[index], pos & VFIO_PCI_OFFSET_MASK, length);
	up_read(&t->lock);
}

/* ----------------------------------------------------------------- the VMM's faults */

static struct vph_device *vph_touched_device(const struct vm_area_struct *vma)
{
	/* As vfio-pci-core has set it. */
	struct vfio_pci_core_device *core = vma->vm_private_data;

	return container_of(core, struct vph_device, core);
}

static vm_fault_t vph_touched_fault(struct vm_fault *vmf)
{
	struct vph_device *hdev = vph_touched_device(vmf->vma);
	struct vph_touched *t = &hdev->channel->touched;
	u64 pos = (u64)vmf->pgoff << PAGE_SHIFT;
	struct vph_touched_bar *bar;
	vm_fault_t ret;

	down_read(&t->lock);
	bar = t->bar[VFIO_PCI_OFFSET_TO_INDEX(pos)];
	if (bar)
		vph_touched_set(t, bar, pos & VFIO_PCI_OFFSET_MASK, PAGE_SIZE);
	ret = t->core_vm_ops->fault(vmf);
	up_read(&t->lock);
	return ret;
}

#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
static vm_fault_t vph_touched_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vph_device *hdev = vph_touched_device(vmf->vma);
	struct vph_touched *t = &hdev->channel->touched;
	vm_fault_t ret = VM_FAULT_FALLBACK;

	down_read(&t->lock);
	/* What is tracked is mapped page by page. */
	if (!t->bar[VFIO_PCI_OFFSET_TO_INDEX((u64)vmf->pgoff << PAGE_SHIFT)] &&
	    t->core_vm_ops->huge_fault)
		ret = t->core_vm_ops->huge_fault(vmf, order);
	up_read(&t->lock);
	return ret;
}
#endif

static const struct vm_operations_struct vph_touched_vm_ops = {
	.fault = vph_touched_fault,
#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
	.huge_fault = vph_touched_huge_fault,
#endif
};

/* A mapping of a BAR that vfio-pci-core has just made for the VMM. */
void vph_touched_mmap(struct vph_device *hdev, struct vm_area_struct *vma)
{
	if (!vph_owns_migration(hdev) || !vma->vm_ops ||
	    vma->vm_pgoff >> (VFIO_PCI_OFFSET_SHIFT - PAGE_SHIFT) >= PCI_STD_NUM_BARS)
		return;
	/* The same for every mapping. */
	WRITE_ONCE(hdev->channel->touched.core_vm_ops, vma->vm_ops);
	vma->vm_ops = &vph_touched_vm_ops;
}

/* ------------------------------------------------------------------------ questions */

static void vph_touched_bar_free(struct vph_touched_bar *bar)
{
	if (!bar)
		return;
	kvfree(bar->touched);
	kvfree(bar->asked);
	kfree(bar);
}

static struct vph_touched_bar *vph_touched_bar_alloc(u64 nr)
{
	size_t size = BITS_TO_LONGS(nr) * sizeof(long);
	struct vph_touched_bar *bar;

	bar = kzalloc(sizeof(*bar), GFP_KERNEL_ACCOUNT);
	if (!bar)
		return NULL;
	bar->nr = nr;
	bar->touched = kvzalloc(size, GFP_KERNEL_ACCOUNT);
	bar->asked = kvzalloc(size, GFP_KERNEL_ACCOUNT);
	if (!bar->touched || !bar->asked) {
		vph_touched_bar_free(bar);
		return NULL;
	}
	/* What was touched before somebody kept track. */
	bitmap_fill(bar->touched, nr);
	return bar;
}

/* From now on this BAR is tracked. */
static int vph_touched_begin(struct vph_touched *t, unsigned int index, u64 nr)
{
	struct vph_touched_bar *bar;

	if (READ_ONCE(t->bar[index]))
		return 0;
	bar = vph_touched_bar_alloc(nr);
	if (!bar)
		return -ENOMEM;
	down_write(&t->lock);
	if (!t->bar[index]) {
		WRITE_ONCE(t->bar[index], bar);
		bar = NULL;
	}
	up_write(&t->lock);
	vph_touched_bar_free(bar);
	return 0;
}

static void vph_touched_fill(struct vph_touched *t)
{
	unsigned int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		if (t->bar[i])
			bitmap_fill(t->bar[i]->touched, t->bar[i]->nr);
	atomic64_set(&t->count, t->nr_asked);
}

static void vph_touched_take(struct vph_touched *t, struct vph_touched_bar *bar,
			     unsigned int first, unsigned int nr, unsigned long *out)
{
	unsigned int page = first, end = first + nr;
	unsigned int counted = 0, known = 0;

	down_write(&t->lock);
	if (xchg(&t->all, false))
		vph_touched_fill(t);
	for_each_set_bit_from(page, bar->touched, end) {
		__set_bit(page - first, out);
		counted += test_bit(page, bar->asked);
	}
	bitmap_clear(bar->touched, first, nr);

	page = first;
	for_each_set_bit_from(page, bar->asked, end)
		known++;
	bitmap_set(bar->asked, first, nr);
	WRITE_ONCE(t->nr_asked, t->nr_asked + nr - known);
	atomic64_add(counted, &t->taken);
	atomic64_sub(counted, &t->count);
	up_write(&t->lock);
}

/* When this returns, the pages are not mapped, and the caller frees what says which they are. */
static long vph_touched_ask(struct vph_session *session,
			    const struct vfio_pci_hooks_touched *ask, unsigned long **bitmap)
{
	struct vph_touched *t = &session->channel->touched;
	struct vph_device *hdev = session->hdev;
	unsigned int index = ask->region;
	unsigned long *out;
	u64 size, nr, first;
	long ret;

	if (index >= PCI_STD_NUM_BARS ||
	    !(pci_resource_flags(hdev->core.pdev, index) & IORESOURCE_MEM))
		return -EINVAL;
	size = pci_resource_len(hdev->core.pdev, index);
	nr = DIV_ROUND_UP_ULL(size, BIT(VPH_TOUCHED_SHIFT));
	first = ask->offset >> VPH_TOUCHED_SHIFT;
	if (!IS_ALIGNED(ask->offset, BIT(VPH_TOUCHED_SHIFT)) || !ask->pages || first >= nr ||
	    ask->pages > nr - first)
		return -EINVAL;
	if (!vph_owns_migration(hdev) || size > VPH_TOUCHED_MAX_BAR)
		return -EOPNOTSUPP;

	ret = vph_touched_begin(t, index, nr);
	if (ret)
		return ret;
	out = kvzalloc(BITS_TO_BYTES(round_up(ask->pages, 64)), GFP_KERNEL_ACCOUNT);
	if (!out)
		return -ENOMEM;
	vph_touched_take(t, t->bar[index], first, ask->pages, out);
	unmap_mapping_range(hdev->core.vdev.inode->i_mapping,
			    VFIO_PCI_INDEX_TO_OFFSET(index) + ask->offset,
			    ask->pages << VPH_TOUCHED_SHIFT, true);
	*bitmap = out;
	return 0;
}

long vph_touched_user(struct vph_session *session, void __user *arg)
{
	struct vfio_pci_hooks_touched ask;
	unsigned long *bitmap;
	long ret;

	ret = vph_copy_in(&ask, sizeof(ask), arg);
	if (ret)
		return ret;
	if (ask.flags || ask.reserved)
		return -EINVAL;
	ret = vph_session_enter(session);
	if (ret)
		return ret;
	ret = vph_touched_ask(session, &ask, &bitmap);
	vph_session_leave(session);
	if (ret)
		return ret;

	if (copy_to_user(u64_to_user_ptr(ask.bitmap), bitmap,
			 BITS_TO_BYTES(round_up(ask.pages, 64)))) {
		/* Nobody was told. */
		vph_touched_all(session->channel);
		ret = -EFAULT;
	}
	kvfree(bitmap);
	return ret;
}

/* --------------------------------------------------------------------------- counts */

/*
 * Bytes of pages that were touched since the worker asked about them, or that it has
 * asked about since it said last how much is left.
 */
u64 vph_touched_bytes(struct vph_channel *ch)
{
	struct vph_touched *t = &ch->touched;
	s64 pages;

	pages = READ_ONCE(t->all) ? READ_ONCE(t->nr_asked) :
				    atomic64_read(&t->count) + atomic64_read(&t->taken);
	return max_t(s64, pages, 0) << VPH_TOUCHED_SHIFT;
}

/* The worker says how much is left: what it has taken until now is in there. */
void vph_touched_told(struct vph_channel *ch)
{
	atomic64_set(&ch->touched.taken, 0);
}

/* ----------------------------------------------------------------------- life cycle */

/* For a reset, which may hold memory_lock, and for a session that knows nothing yet. */
void vph_touched_all(struct vph_channel *ch)
{
	WRITE_ONCE(ch->touched.all, true);
}

void vph_touched_init(struct vph_channel *ch)
{
	init_rwsem(&ch->touched.lock);
}

/* The device is closed: no mapping of the VMM is left, and no session. */
void vph_touched_end(struct vph_channel *ch)
{
	struct vph_touched *t = &ch->touched;
	unsigned int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		vph_touched_bar_free(t->bar[i]);
		t->bar[i] = NULL;
	}
	t->all = false;
	t->nr_asked = 0;
	atomic64_set(&t->count, 0);
	atomic64_set(&t->taken, 0);
}
