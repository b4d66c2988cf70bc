/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between kernels, 6.12 and later. Kbuild greps the headers and
 * sets the VPH_HAVE_* macros.
 */
#ifndef VPH_COMPAT_H
#define VPH_COMPAT_H

#include <linux/err.h>
/* Declares the 64 bit accessors of vfio_pci_core.h wherever it has them. */
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/vfio_pci_core.h>

/*
 * The kernel maps a BAR either when vfio-pci-core enables the device, or when
 * somebody asks for it first.
 */
static inline void __iomem *vph_iomap(struct vfio_pci_core_device *core, int bar)
{
#ifdef VPH_HAVE_GET_IOMAP
	return vfio_pci_core_get_iomap(core, bar);
#else
	int ret = vfio_pci_core_setup_barmap(core, bar);

	return ret ? IOMEM_ERR_PTR(ret) : core->barmap[bar];
#endif
}

/* A mapping that is there already, or NULL: for places that cannot make one. */
static inline void __iomem *vph_iomap_made(struct vfio_pci_core_device *core, int bar)
{
#ifdef VPH_HAVE_GET_IOMAP
	void __iomem *io = vfio_pci_core_get_iomap(core, bar);

	return IS_ERR(io) ? NULL : io;
#else
	return core->barmap[bar];
#endif
}

/* Members of struct vfio_device_ops that every table of ours has alike. */
#ifdef VPH_HAVE_MATCH_TOKEN_UUID
#define VPH_OPS_MATCH_TOKEN	.match_token_uuid = vfio_pci_core_match_token_uuid,
#else
#define VPH_OPS_MATCH_TOKEN
#endif

#ifdef VPH_HAVE_PASID_IOAS
#define VPH_OPS_PASID							\
	.pasid_attach_ioas = vfio_iommufd_physical_pasid_attach_ioas,	\
	.pasid_detach_ioas = vfio_iommufd_physical_pasid_detach_ioas,
#else
#define VPH_OPS_PASID
#endif

/*
 * Who asks for a region's properties: vfio.ko by an operation of its own, or else the
 * VMM by an ioctl that a driver answers in full.
 */
#ifdef VPH_HAVE_GET_REGION_INFO_CAPS
#define VPH_OPS_REGION_INFO(fn)	.get_region_info_caps = fn,
#else
#define VPH_OPS_REGION_INFO(fn)
static inline int vfio_pci_ioctl_get_region_info(struct vfio_device *core_vdev,
						 struct vfio_region_info *info,
						 struct vfio_info_cap *caps)
{
	return -EINVAL;
}
#endif

#define VPH_OPS_COMMON						\
	.name		= VPH_DRIVER_NAME,			\
	.request	= vfio_pci_core_request,		\
	.match		= vfio_pci_core_match,			\
	VPH_OPS_MATCH_TOKEN					\
	VPH_OPS_PASID

static inline bool vph_is_dma_buf(u32 feature)
{
#ifdef VFIO_DEVICE_FEATURE_DMA_BUF
	return feature == VFIO_DEVICE_FEATURE_DMA_BUF;
#else
	return false;
#endif
}

/* What vfio-pci sets besides its operations. */
static inline void vph_set_pci_ops(struct vfio_pci_core_device *core)
{
#ifdef VPH_HAVE_PCI_DEVICE_OPS
	static const struct vfio_pci_device_ops ops = {
		.get_dmabuf_phys = vfio_pci_core_get_dmabuf_phys,
	};

	core->pci_ops = &ops;
#endif
}

/* Whether the VMM understands flags in the answer to VFIO_MIG_GET_PRECOPY_INFO. */
static inline bool vph_precopy_info_v2(const struct vfio_device *core_vdev)
{
#ifdef VPH_HAVE_PRECOPY_INFO_V2
	return core_vdev->precopy_info_v2;
#else
	return false;
#endif
}

#ifndef VFIO_PRECOPY_INFO_REINIT
#define VFIO_PRECOPY_INFO_REINIT	BIT(0)
#endif

/*
 * vfio.ko answers DMA_LOGGING_REPORT only where it was built with this, but takes
 * START everywhere, and a VMM probes START alone.
 */
#define VPH_CAN_REPORT_DMA	IS_ENABLED(CONFIG_IOMMUFD_DRIVER)

/* MODULE_IMPORT_NS() takes a name in some kernels and a string in others. */
#define VPH_IMPORT_NS(ns)	MODULE_INFO(import_ns, ns)

#endif /* VPH_COMPAT_H */
