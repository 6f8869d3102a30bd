"""The path by which deployed vdsm versions import `directio`; everything else lives elsewhere."""
