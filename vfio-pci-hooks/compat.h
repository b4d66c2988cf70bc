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

#define VPH_OPS_COMMON						\
	.name		= VPH_DRIVER_NAME,			\
	.request	= vfio_pci_core_request,		\
	.match		= vfio_pci_core_match,			\
	VPH_OPS_MATCH_TOKEN					\
	.bind_iommufd	= vfio_iommufd_physical_bind,		\
	.unbind_iommufd	= vfio_iommufd_physical_unbind,		\
	.attach_ioas	= vfio_iommufd_physical_attach_ioas,	\
	.detach_ioas	= vfio_iommufd_physical_detach_ioas,	\
	VPH_OPS_PASID

#endif /* VPH_COMPAT_H */
