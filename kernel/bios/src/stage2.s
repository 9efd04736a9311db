# The second stage: loads kernel and record, collects the memory map, enters the kernel.
.section .stage2, "awx"
.code16

.set MEMORY_MAP, 0x5000
.set MEMORY_MAP_MAX, 128
.set START_INFO, 0x7000
.set MODULE_LIST, 0x7040
.set BUFFER, 0x10000
.set BUFFER_SECTORS, 64
.set SERIAL, 0x3f8

stage2_start:
    jmp begin
    .org 8
# The table; the converter fills it in (src/disk/bios.rs has the layout).
magic:          .ascii "D2UP"
entry:          .long 0
record_lba:     .quad 0
record_len:     .long 0
record_at:      .long 0
segments:       .long 0
memory_end:     .long 0
memory_start:   .long 0
sector_shift:   .byte 0                     # the drive's sectors have 512 << this bytes
    .org 48
segment_table:  .fill 8 * 24, 1, 0

begin:
    movb %dl, drive
    call enable_a20
    call read_memory_map
    call check_memory

    # Kernel segments.
    movw $segment_table, %bx
    movw segments, %cx
1:
    pushw %cx
    movl 0(%bx), %eax
    movl %eax, position
    movl 4(%bx), %eax
    movl %eax, position + 4
    movl 8(%bx), %edi
    movl 12(%bx), %ebp
    call load
    # What the file does not hold is zero.
    movl 8(%bx), %edi
    addl 12(%bx), %edi
    movl 16(%bx), %ecx
    subl 12(%bx), %ecx
    call clear
    addw $24, %bx
    popw %cx
    decw %cx
    jnz 1b

    # The record.
    movl record_lba, %eax
    movl %eax, position
    movl record_lba + 4, %eax
    movl %eax, position + 4
    movl record_at, %edi
    movl record_len, %ebp
    call load

    # hvm_start_info; the memory is cleared first.
    xorl %eax, %eax
    movw $START_INFO, %di
    movw $(0x80 / 4), %cx
    rep stosl
    movl $0x336ec578, START_INFO            # XEN_HVM_START_MAGIC_VALUE
    movl $1, START_INFO + 4                 # version
    movl $1, START_INFO + 12                # modules
    movl $MODULE_LIST, START_INFO + 16
    movl $command_line, START_INFO + 24
    movl $MEMORY_MAP, START_INFO + 40
    movl memory_map_count, %eax
    movl %eax, START_INFO + 48
    movl record_at, %eax
    movl %eax, MODULE_LIST
    movl record_len, %eax
    movl %eax, MODULE_LIST + 8

    cli
    lgdt gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $protected

.code32
protected:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    xorl %eax, %eax
    movl %eax, %cr4
    movl $START_INFO, %ebx
    jmp *entry
.code16

# Opens address line 20: by the BIOS, else by the chip set.
enable_a20:
    movw $0x2401, %ax
    int $0x15
    call a20_open
    jnz 1f
    inb $0x92, %al
    orb $2, %al
    andb $0xfe, %al                         # bit 0 is reset
    outb %al, $0x92
    call a20_open
    jnz 1f
    movw $text_a20, %si
    jmp fail
1:  ret

# Clears ZF if 0000:0500 and ffff:0510 are different places.
a20_open:
    pushw %es
    movw $0xffff, %ax
    movw %ax, %es
    movb 0x500, %al
    movb %es:0x510, %ah
    movb $0x55, 0x500
    movb $0xaa, %es:0x510
    cmpb $0xaa, 0x500
    movb %al, 0x500                         # moves leave the flags alone
    movb %ah, %es:0x510
    popw %es
    ret

# Int 15h, E820: entries of 24 bytes whose last four hvm_memmap_table_entry reserves.
read_memory_map:
    xorl %ebx, %ebx
    movw $MEMORY_MAP, %di
1:
    movl $0xe820, %eax
    movl $0x534d4150, %edx                  # "SMAP"
    movl $24, %ecx
    int $0x15
    jc 2f
    cmpl $0x534d4150, %eax
    jne 2f
    movl $0, 20(%di)
    addw $24, %di
    incl memory_map_count
    cmpl $MEMORY_MAP_MAX, memory_map_count
    jae 2f
    testl %ebx, %ebx
    jnz 1b
2:
    cmpl $0, memory_map_count
    jne 3f
    movw $text_map, %si
    jmp fail
3:  ret

# Is there RAM for all that is loaded?
check_memory:
    movw $MEMORY_MAP, %di
    movl memory_map_count, %ecx
1:
    cmpl $1, 16(%di)                        # RAM
    jne 2f
    cmpl $0, 4(%di)                         # from below 4 GiB
    jne 2f
    movl memory_start, %eax
    cmpl %eax, 0(%di)
    ja 2f
    cmpl $0, 12(%di)                        # of 4 GiB or more
    jne 3f
    movl 0(%di), %eax
    addl 8(%di), %eax
    jc 3f
    cmpl memory_end, %eax
    jae 3f
2:
    addw $24, %di
    decl %ecx
    jnz 1b
    movw $text_memory, %si
    jmp fail
3:  ret

# Loads ebp bytes from sector `position` (of 512 bytes) to edi. A CD's sectors are larger, so what
# is wanted may start within one.
load:
    testl %ebp, %ebp
    jz 3f
    pushal
    movb sector_shift, %cl
    movl position, %eax
    movl position + 4, %edx
    shrdl %cl, %edx, %eax
    shrl %cl, %edx
    movl %eax, packet_lba
    movl %edx, packet_lba + 4
    movl $1, %eax
    shll %cl, %eax
    decl %eax
    andl position, %eax
    shll $9, %eax
    movl %eax, skip                         # bytes before the wanted ones
    addl %ebp, %eax
    movl $512, %ebx
    shll %cl, %ebx
    leal -1(%eax, %ebx), %eax
    addb $9, %cl
    shrl %cl, %eax                          # whole sectors of the drive
    movl $(BUFFER_SECTORS * 512), %ebx
    shrl %cl, %ebx
    cmpl %ebx, %eax
    jbe 1f
    movl %ebx, %eax
1:
    movw %ax, packet_count
    shll %cl, %eax
    subl skip, %eax
    movl %eax, piece                        # wanted bytes in the buffer, and perhaps some more
    movb $0x42, %ah
    movb drive, %dl
    movw $packet, %si
    int $0x13
    popal                                   # leaves the carry flag alone
    jc read_failed
    movl piece, %eax
    cmpl %ebp, %eax
    jbe 2f
    movl %ebp, %eax
2:
    subl %eax, %ebp
    leal 511(%eax), %ecx
    shrl $9, %ecx
    addl %ecx, position
    adcl $0, position + 4
    call unreal
    movl $BUFFER, %esi
    addl skip, %esi
    movl %eax, %ecx
    andl $3, %eax
    shrl $2, %ecx
    .byte 0x67, 0xf3, 0x66, 0xa5            # addr32 rep movsl
    movl %eax, %ecx
    .byte 0x67, 0xf3, 0xa4                  # addr32 rep movsb
    jmp load
3:  ret

read_failed:
    movw $text_read, %si
    jmp fail

# Clears ecx bytes at edi.
clear:
    call unreal
    movl %ecx, %edx
    shrl $2, %ecx
    xorl %eax, %eax
    .byte 0x67, 0xf3, 0x66, 0xab            # addr32 rep stosl
    movl %edx, %ecx
    andl $3, %ecx
    .byte 0x67, 0xf3, 0xaa                  # addr32 rep stosb
    ret

# Gives ds and es limits of 4 GiB, and leaves their bases at zero.
unreal:
    pushl %eax
    cli
    lgdt gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    jmp 1f
1:
    pushw $16
    popw %ds
    pushw $16
    popw %es
    andb $0xfe, %al
    movl %eax, %cr0
    jmp 2f
2:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    sti
    popl %eax
    ret

# Says what is wrong, on the screen and on the first serial port, and stops.
fail:
    pushw %si
    movw $text_name, %si
    call say
    popw %si
    call say
    movw $text_end, %si
    call say
1:  hlt
    jmp 1b

say:
    lodsb
    testb %al, %al
    jz 3f
    movw $7, %bx
    movb $0x0e, %ah
    pushw %ax
    int $0x10
    popw %ax
    movb %al, %ah
    movw $(SERIAL + 5), %dx
    movw $0xffff, %cx                       # a port that is not there never becomes ready
1:
    inb %dx, %al
    testb $0x20, %al
    jnz 2f
    loop 1b
    jmp say
2:
    movb %ah, %al
    movw $SERIAL, %dx
    outb %al, %dx
    jmp say
3:  ret

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff                # 32-bit code, 4 GiB
    .quad 0x00cf93000000ffff                # data, 4 GiB
gdt_pointer:
    .word 23
    .long gdt

    .balign 4
packet:                                     # disk address packet
    .byte 16, 0
packet_count:
    .word 0
    .word 0, BUFFER / 16                    # to 1000:0000
packet_lba:
    .quad 0
position:
    .quad 0
skip:
    .long 0
piece:
    .long 0
memory_map_count:
    .long 0
drive:
    .byte 0
command_line:
    .byte 0
text_name:   .asciz "dock2uni: "
text_a20:    .asciz "address line 20 stays closed"
text_map:    .asciz "the BIOS gives no memory map"
text_memory: .asciz "too little memory for the kernel"
text_read:   .asciz "the disk cannot be read"
text_end:    .asciz "\r\n"
