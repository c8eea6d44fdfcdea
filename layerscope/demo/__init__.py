"""`layerscope demo`: small networks trained here, uploaded, analysed and shown."""
