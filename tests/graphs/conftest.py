from tape import tape

__all__ = ["tape"]
