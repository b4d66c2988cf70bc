// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings of a worker: BARs of the device through vfio-pci's own fault handler,
 * and the memory it shares with the kernel. None outlives the session: each fault
 * asks whether it is alive, under the lock that its end takes before it zaps.
 */
#include <linux/mm.h>
#include <linux/vmalloc.h>

#include "vfio_pci_hooks_priv.h"

#define VPH_WINDOW_PAGES_SHIFT	(VFIO_PCI_OFFSET_SHIFT - PAGE_SHIFT)

static struct vph_session *vph_vma_session(const struct vm_area_struct *vma)
{
	return vma->vm_file->private_data;
}

static vm_fault_t vph_bar_fault(struct vm_fault *vmf)
{
	struct vph_session *session = vph_vma_session(vmf->vma);
	vm_fault_t ret;

	if (vph_session_enter(session))
		return VM_FAULT_SIGBUS;
	ret = session->core_vm_ops->fault(vmf);
	vph_session_leave(session);
	return ret;
}

#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
static vm_fault_t vph_bar_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vph_session *session = vph_vma_session(vmf->vma);
	vm_fault_t ret = VM_FAULT_FALLBACK;

	if (vph_session_enter(session))
		return VM_FAULT_SIGBUS;
	if (session->core_vm_ops->huge_fault)
		ret = session->core_vm_ops->huge_fault(vmf, order);
	vph_session_leave(session);
	return ret;
}
#endif

static const struct vm_operations_struct vph_bar_vm_ops = {
	.fault = vph_bar_fault,
#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
	.huge_fault = vph_bar_huge_fault,
#endif
};

static void *vph_window(struct vph_session *session, u64 window, size_t *size)
{
	switch (window << VFIO_PCI_OFFSET_SHIFT) {
	case VFIO_PCI_HOOKS_MMAP_SLOTS:
		*size = VFIO_PCI_HOOKS_SLOTS * sizeof(*session->slots);
		return session->slots;
	case VFIO_PCI_HOOKS_MMAP_SHADOW:
		*size = PAGE_ALIGN(session->channel->def->shadow_size);
		return session->shadow;
	case VFIO_PCI_HOOKS_MMAP_STREAM:
		*size = VFIO_PCI_HOOKS_STREAM_SIZE;
		return session->stream;
	}
	return NULL;
}

/*
 * A slice at a time, so that a stream that begins has few faults before it.
 * As page frames, not pages: no reference to them survives the zap.
 */
static vm_fault_t vph_insert_around(struct vm_fault *vmf, const void *memory, size_t offset,
				    size_t size)
{
	struct vm_area_struct *vma = vmf->vma;
	size_t from = round_down(offset, VFIO_PCI_HOOKS_STREAM_SLICE);
	size_t to = min(from + VFIO_PCI_HOOKS_STREAM_SLICE, size);
	vm_fault_t ret = VM_FAULT_SIGBUS;

	from = max(from, offset - min(offset, vmf->address - vma->vm_start));
	to = min(to, offset + (vma->vm_end - vmf->address));
	for (; from < to; from += PAGE_SIZE) {
		ret = vmf_insert_pfn(vma, vmf->address + from - offset,
				     vmalloc_to_pfn(memory + from));
		if (ret != VM_FAULT_NOPAGE)
			break;
	}
	return ret;
}

static vm_fault_t vph_page_fault(struct vm_fault *vmf)
{
	struct vph_session *session = vph_vma_session(vmf->vma);
	size_t offset = (vmf->pgoff & (BIT_ULL(VPH_WINDOW_PAGES_SHIFT) - 1)) << PAGE_SHIFT;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	size_t size = 0;
	void *memory;

	if (vph_session_enter(session))
		return VM_FAULT_SIGBUS;
	memory = vph_window(session, vmf->pgoff >> VPH_WINDOW_PAGES_SHIFT, &size);
	if (memory && offset < size)
		ret = vph_insert_around(vmf, memory, offset, size);
	vph_session_leave(session);
	return ret;
}

static const struct vm_operations_struct vph_page_vm_ops = {
	.fault = vph_page_fault,
};

static int vph_mmap_bar(struct vph_session *session, struct vm_area_struct *vma)
{
	u64 offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) & VFIO_PCI_OFFSET_MASK;
	struct vph_device *hdev = session->hdev;
	int ret;

	/* As with REGION_RW, no way leads around the handlers behind the channel. */
	if (vph_is_trapped_behind(hdev, hdev->def->channel, vma->vm_pgoff >> VPH_WINDOW_PAGES_SHIFT,
				  offset, vma->vm_end - vma->vm_start))
		return -EINVAL;
	ret = vfio_pci_core_mmap(&hdev->core.vdev, vma);
	if (ret)
		return ret;
	WRITE_ONCE(session->core_vm_ops, vma->vm_ops);
	vma->vm_ops = &vph_bar_vm_ops;
	vm_flags_set(vma, VM_DONTCOPY);
	return 0;
}

static int vph_mmap_memory(struct vph_session *session, struct vm_area_struct *vma)
{
	u64 offset = (vma->vm_pgoff & (BIT_ULL(VPH_WINDOW_PAGES_SHIFT) - 1)) << PAGE_SHIFT;
	u64 end = offset + (vma->vm_end - vma->vm_start);
	size_t size = 0;
	void *memory;

	memory = vph_window(session, vma->vm_pgoff >> VPH_WINDOW_PAGES_SHIFT, &size);
	if (!memory || end > size)
		return -EINVAL;
	/* Two mappings at once may leave the smaller one: then fewer slices are used. */
	if (memory == session->stream && end > READ_ONCE(session->stream_mapped))
		WRITE_ONCE(session->stream_mapped, end);
	vm_flags_set(vma, VM_PFNMAP | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &vph_page_vm_ops;
	return 0;
}

int vph_session_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct vph_session *session = filp->private_data;
	int ret;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	ret = vph_session_enter(session);
	if (ret)
		return ret;
	if (vma->vm_pgoff >> VPH_WINDOW_PAGES_SHIFT < PCI_STD_NUM_BARS)
		ret = vph_mmap_bar(session, vma);
	else
		ret = vph_mmap_memory(session, vma);
	vph_session_leave(session);
	return ret;
}
