// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMUFD, for a device whose definition grants its worker the guest's memory, or names
 * a logger, which reads the guest's descriptors. vfio_dma_rw() refuses physical devices
 * there, so this has an access object of its own, which follows the device from address
 * space to address space.
 */
#include <linux/iommu.h>
#include <linux/iommufd.h>

#include "vfio_pci_hooks_priv.h"

/*
 * How many objects of a context are looked at for address spaces. IOMMUFD gives the lowest
 * free id, so that nobody's is behind these who has not had as many objects at once.
 */
#define VPH_IOMMUFD_OBJECTS	4096

/* Nothing is ever pinned, so there is nothing to give back. */
static void vph_access_unmap(void *data, unsigned long iova, unsigned long length)
{
}

static const struct iommufd_access_ops vph_access_ops = {
	.unmap = vph_access_unmap,
};

int vph_bind_iommufd(struct vfio_device *core_vdev, struct iommufd_ctx *ictx, u32 *out_device_id)
{
	struct vph_device *hdev = vph_device(core_vdev);
	struct iommufd_access *access;
	u32 id;
	int ret;

	ret = vfio_iommufd_physical_bind(core_vdev, ictx, out_device_id);
	if (ret || (hdev->def->guest_memory == VFIO_PCI_HOOKS_MEMORY_NONE &&
		    hdev->def->logger < 0))
		return ret;

	access = iommufd_access_create(ictx, &vph_access_ops, hdev, &id);
	if (IS_ERR(access)) {
		vfio_iommufd_physical_unbind(core_vdev);
		return PTR_ERR(access);
	}
	hdev->access = access;
	return 0;
}

void vph_unbind_iommufd(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);

	/* The device is closed, and so nobody is on the way to the memory. */
	if (hdev->access)
		iommufd_access_destroy(hdev->access);
	hdev->access = NULL;
	hdev->access_attached = false;
	vfio_iommufd_physical_unbind(core_vdev);
}

static void vph_access_detach(struct vph_device *hdev)
{
	if (hdev->access_attached)
		iommufd_access_detach(hdev->access);
	hdev->access_attached = false;
}

/*
 * Where a VMM attaches a page table (HWPT) of its own, as QEMU does, IOMMUFD tells nobody
 * which address space that translates. It holds that one for as long as it exists, so
 * where the context has one alone, this is it. With more than one there is no telling, and
 * behind a nested table addresses are the guest's own, which no address space knows.
 * Looked for with an access object of its own: the device's is in use meanwhile, and must
 * not reach another's memory for a moment. Returns why not, or NULL.
 */
static const char *vph_only_ioas(struct vfio_device *core_vdev, u32 *ioas_id)
{
	/* The device is attached, by a caller whose lock keeps it so. */
	struct iommu_domain *domain = iommu_get_domain_for_dev(core_vdev->dev);
	struct iommufd_ctx *ictx = iommufd_device_to_ictx(core_vdev->iommufd_device);
	const char *problem = NULL;
	struct iommufd_access *probe;
	u32 id, found = 0;
	int ret;

	if (!domain || !(domain->type & __IOMMU_DOMAIN_PAGING))
		return "which is nested";

	probe = iommufd_access_create(ictx, &vph_access_ops, NULL, &id);
	if (IS_ERR(probe))
		return "and looking for its address space failed";

	for (id = 1; id <= VPH_IOMMUFD_OBJECTS && !problem; id++) {
		if (found)
			ret = iommufd_access_replace(probe, id);
		else
			ret = iommufd_access_attach(probe, id);
		/* Another kind of object, or none. */
		if (ret == -ENOENT)
			continue;
		if (ret)
			problem = "and looking for its address space failed";
		else if (found)
			problem = "and there are several address spaces that may be its own";
		else
			found = id;
	}
	if (!found && !problem)
		problem = "and there is no address space";
	iommufd_access_destroy(probe);
	*ioas_id = found;
	return problem;
}

int vph_attach_ioas(struct vfio_device *core_vdev, u32 *pt_id)
{
	struct vph_device *hdev = vph_device(core_vdev);
	const char *problem = NULL;
	u32 ioas_id = *pt_id;
	int ret;

	ret = vfio_iommufd_physical_attach_ioas(core_vdev, pt_id);
	if (ret || !hdev->access)
		return ret;

	vph_access_detach(hdev);
	ret = iommufd_access_attach(hdev->access, ioas_id);
	if (ret) {
		problem = vph_only_ioas(core_vdev, &ioas_id);
		if (!problem)
			ret = iommufd_access_attach(hdev->access, ioas_id);
	}
	hdev->access_attached = !ret;
	if (ret)
		pci_notice_ratelimited(hdev->core.pdev,
				       "no guest memory for worker or logger: the VMM attached a page table, %s\n",
				       problem ?: "and its address space cannot be used");
	return 0;
}

void vph_detach_ioas(struct vfio_device *core_vdev)
{
	vph_access_detach(vph_device(core_vdev));
	vfio_iommufd_physical_detach_ioas(core_vdev);
}

/* In a kernel thread, or a thread of the VMM. */
int vph_iova_rw(struct vph_device *hdev, dma_addr_t iova, void *data, size_t length, bool write)
{
	unsigned int flags = write ? IOMMUFD_ACCESS_RW_WRITE : IOMMUFD_ACCESS_RW_READ;

	if (!hdev->access)
		return vfio_dma_rw(&hdev->core.vdev, iova, data, length, write);
	if (current->flags & PF_KTHREAD)
		flags |= IOMMUFD_ACCESS_RW_KTHREAD;
	return iommufd_access_rw(hdev->access, iova, data, length, flags);
}
