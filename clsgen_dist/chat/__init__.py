"""Chat models, wherever they run: asked, limited, remembered."""
