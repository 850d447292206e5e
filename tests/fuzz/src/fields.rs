//! Inputs as fields: what a fuzzer's bytes are taken apart with. It never fails, so that every input means something.

/// Takes fields off the front of an input, little-endian; what is not there is zero or empty.
#[derive(Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// All of `input`.
    pub fn of(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// The next `len` bytes, or as many as are left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// Bytes behind a length of two bytes.
    pub fn counted(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.bytes(len.into())
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// True where nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let head = self.bytes(N);
        out[..head.len()].copy_from_slice(head);
        out
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number of any size in few bytes: small ones directly, large ones as a power of two and a little more or less,
    /// where the limits are.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=127 => small.into(),
            power @ 128..=191 => {
                let (base, by) = (1_u64 << (power & 63), i64::from(self.array::<1>()[0].cast_signed()));
                base.wrapping_add_signed(by)
            }
            192..=223 => self.u16().into(),
            224..=247 => self.u32().into(),
            _ => self.u64(),
        }
    }
}

/// True where bit `bit` of `flags` is set.
pub fn flag(flags: u8, bit: u8) -> bool {
    flags & 1 << bit != 0
}
