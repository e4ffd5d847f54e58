"""Page tables walked in software by the host, as for DragonFly's vkernels."""
